"use strict";
// Of each quantity: key, group, name, what it says, formula, the function that computes it.
const QUANTITIES = [
  ["logprobs", "sampled", "log-prob", "How likely the policy finds this token, given all before it; nats.",
   "log π(token | before)", "policy.log_softmax"],
  ["reference", "sampled", "reference", "How likely the reference, the model before PPO, finds the same token; nats.",
   "log π_ref(token | before)", "policy.log_softmax"],
  ["kl", "sampled", "KL", "How much likelier the token was to the policy than to the reference. It may be negative " +
   "for a token; summed over a response, and averaged, it is the KL.", "kl = log π − log π_ref", "ppo.kl_estimates"],
  ["rewards", "paid", "reward", "Every token pays for its KL; the last one also gets what the whole response is paid.",
   "r_t = −β kl_t, at the last token + paid", "ppo.penalized_rewards"],
  ["values", "judged", "value", "What the critic expects, before this token is chosen, that will still be paid.",
   "V_t = V(query, tokens before t)", "policy.ActorCritic"],
  ["delta", "judged", "delta", "The surprise of one step: what is paid now and expected next, less what was expected " +
   "before.", "δ_t = r_t + γ V_t+1 − V_t", "ppo.gae"],
  ["advantages", "judged", "advantage", "How much better the token turned out than expected: its own surprise and, " +
   "fading, all that followed.", "A_t = δ_t + γλ A_t+1", "ppo.gae"],
  ["whitened", "judged", "whitened", "The advantage as the loss takes it: mean 0 and deviation 1 over all tokens of " +
   "the rollout, so that steps do not depend on the score's scale.", "(A − mean) / std", "ppo.whiten"],
  ["returns", "judged", "return", "What the critic should have expected here: it learns to.",
   "G_t = A_t + V_t", "ppo.gae"],
  ["ratio", "learned", "ratio", "The token's probability now, over the one that it was sampled with.",
   "ρ = π / π_old", "ppo.policy_loss"],
  ["clipped", "learned", "clipped", "Whether the probability has moved so far, to the side that pays, that moving on " +
   "gains nothing: such a token has no gradient.", "−A clip(ρ, 1 − ε, 1 + ε) > −Aρ", "ppo.policy_loss"],
  ["share", "learned", "gradient share", "How hard the token would pull in a step on the whole rollout: the policy " +
   "loss's gradient at its log-prob, the average token's being 1. Up (+) or down (−); 0 where it is clipped.",
   "−∂L/∂log π / mean |∂L/∂log π|", "ppo.policy_loss"],
];
const GROUPS = { sampled: "1 Sampled", paid: "2 Paid", judged: "3 Judged", learned: "4 Learned from" };
const NAMES = Object.fromEntries(QUANTITIES.map((q) => [q[0], q[2]]));
const LOOKS = JSON.parse(document.getElementById("looks").textContent);
const pick = { look: Object.keys(LOOKS)[0], quantity: "whitened", epoch: 0, row: 0, token: 0 };

// ---------------------------------------------------------------- small things

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, x] of Object.entries(attributes)) element.setAttribute(name, x);
  element.append(...children);   // strings become text, never HTML
  return element;
}

const look = () => LOOKS[pick.look];
const last = () => look().learned.length;   // number of the state after the last epoch
const moves = (key) => look().means[key].length > 1;
const when = (epoch) => (epoch ? `after epoch ${epoch}` : "before the update");

function number(row, key, token, epoch) {
  const states = row.numbers[key];
  return states[Math.min(epoch, states.length - 1)][token];
}

function fixed(x, digits, sign = false) {
  const text = Math.abs(x).toFixed(digits), zero = Number(text) === 0;
  return (x < 0 && !zero ? "−" : sign && !zero ? "+" : "") + text;
}

function shown(key, x) {
  if (key === "clipped") return x ? "clipped" : "free";
  if (key === "ratio") return fixed(x, 3);
  if (key === "share") return fixed(x, 2, true) + "×";
  return fixed(x, 2, key !== "logprobs" && key !== "reference");
}

// How strong a colour: 0 to 1, negative for the other colour.
function strength(key, x) {
  return key === "clipped" ? -x : Math.max(-1, Math.min(1, (x - middle(key)) / limit(key)));
}

const middle = (key) => (key === "ratio" ? 1 : 0);
const limits = {};

// What has the full colour: one scale for all states, so that the slider shows what moves.
function limit(key) {
  if (key === "ratio") return 2 * look().clip;
  const place = `${pick.look} ${key}`;
  if (!(place in limits)) {
    const sizes = look().rows.flatMap((row) => row.numbers[key].flat()).map(Math.abs).sort((a, b) => a - b);
    limits[place] = sizes[Math.floor(0.97 * (sizes.length - 1))] || 1;   // a few far ones would leave the others pale
  }
  return limits[place];
}

// The formula with a token's numbers in it; what stands behind the last sign was computed by the function named.
function worked(row, t) {
  const at = (key, place = t, epoch = 0) => (place < row.tokens.length ? number(row, key, place, epoch) : 0);
  const say = (key, place) => shown(key, at(key, place)), now = (key) => shown(key, at(key, t, pick.epoch));
  const { beta, gamma, lam, clip } = look(), last = t === row.tokens.length - 1, A = at("whitened");
  const bound = A > 0 ? `1 + ${clip}` : `1 − ${clip}`, rho = at("ratio", t, pick.epoch);
  const past = A > 0 ? rho > 1 + clip : rho < 1 - clip;
  return {
    kl: () => `${say("logprobs")} − (${say("reference")}) = ${say("kl")}`,
    rewards: () => (scaled(row) ? "" : `−${beta} · (${say("kl")})${last ? ` + (${fixed(row.paid, 2, true)})` : ""} = ${say("rewards")}`),
    delta: () => `${say("rewards")} + ${gamma} · (${say("values", t + 1)}) − (${say("values")}) = ${say("delta")}`,
    advantages: () => `${say("delta")} + ${gamma} · ${lam} · (${say("advantages", t + 1)}) = ${say("advantages")}`,
    whitened: () => `(${say("advantages")} − (${shown("advantages", look().means.advantages[0])})) / std = ${say("whitened")}`,
    returns: () => `${say("advantages")} + (${say("values")}) = ${say("returns")}`,
    ratio: () => `exp(${now("logprobs")} − (${say("logprobs")})) = ${now("ratio")}`,
    clipped: () => `A ${say("whitened")}, ρ ${now("ratio")}: ${past ? "" : "not "}past ${bound}`,
    share: () => (at("clipped", t, pick.epoch) ? "clipped: 0" : `∝ A ρ = ${say("whitened")} · ${now("ratio")}`),
  }[pick.quantity]?.() || "";
}

// Whether rewards were scaled after they were made (--whiten-rewards).
function scaled(row) {
  return Math.abs(row.paid - look().beta * sum(row.numbers.kl[0]) - sum(row.numbers.rewards[0])) > 0.01;
}

// ---------------------------------------------------------------- what is drawn once

function radios(name, legend, choices) {
  const set = make("fieldset", { class: name }, make("legend", {}, legend));
  for (const [value, label, mark] of choices) {
    const input = make("input", { type: "radio", name, value });
    input.addEventListener("change", () => { pick[name] = value; draw(); });
    set.append(make("label", {}, input, make("span", {}, label, mark || "")));
  }
  return set;
}

function controls() {
  const box = make("div", { class: "controls" });
  const titles = Object.entries(LOOKS).map(([key, x]) => [key, x.title]);
  if (titles.length > 1) box.append(radios("look", "The update", titles));
  const groups = make("div", { class: "groups", role: "group", "aria-label": "Quantity shown in the tokens" });
  for (const [group, title] of Object.entries(GROUPS))
    groups.append(radios("quantity", title, QUANTITIES.filter((q) => q[1] === group)
      .map((q) => [q[0], q[2], moves(q[0]) ? make("i", { "aria-label": ", changes in the update" }, "•") : ""])));
  box.append(groups, make("p", { id: "about", "aria-live": "polite" }));
  return box;
}

function slider() {
  const input = make("input", { type: "range", id: "epoch", min: 0, max: last(), step: 1, "aria-label": "State" });
  input.addEventListener("input", () => { pick.epoch = Number(input.value); draw(); });
  return make("div", { class: "slider" }, make("label", { for: "epoch", id: "when" }), input,
              make("span", { id: "legend", "aria-hidden": "true" }), make("span", { id: "mean" }));
}

function response(row, i) {
  const cells = make("div", { class: "cells", role: "group", "aria-label": `Tokens of response ${i + 1}` });
  row.tokens.forEach((token, t) => {
    const cell = make("button", { type: "button", class: "cell", "data-row": i, "data-token": t },
                      word(token), make("span"));
    cell.addEventListener("focus", () => select(i, t));
    cell.addEventListener("click", () => cell.focus());   // Safari gives a button no focus by itself
    cell.addEventListener("mouseenter", () => panel(i, t));
    cell.addEventListener("mouseleave", () => panel(pick.row, pick.token));
    cells.append(cell);
  });
  cells.addEventListener("keydown", step);
  const kl = sum(row.numbers.kl[0]), total = sum(row.numbers.rewards[0]);
  const cut = row.ended || row.paid === row.score ? "" : " (cut off, so not its score)";
  return make("article", { "aria-label": `Response ${i + 1}` },
    make("h3", {}, make("span", { class: "score" }, `score ${fixed(row.score, 2, true)}`),
         make("span", { class: "prompt" }, row.prompt + " …")), cells,
    make("p", { class: "sums" }, `paid ${fixed(row.paid, 2, true)}${cut} − β ${Number(look().beta.toPrecision(3))} × KL ` +
         `${fixed(kl, 2)} nats${scaled(row) ? "; rewards, scaled," : " = rewards"} ${fixed(total, 2, true)}`));
}

// A token's text; a space at its beginning or end stands there as a letter.
function word(token) {
  const [, before, middle, after] = token.match(/^( ?)([^]*?)( ?)$/);
  const space = (x) => (x ? [make("i", {}, "␣")] : []);
  return make("b", {}, ...space(before), middle.replace(/\t/g, "⇥"), ...space(after));
}

const sum = (xs) => xs.reduce((a, b) => a + b, 0);

function table(caption, header, rows) {
  const line = (cells, tag) => make("tr", {}, ...cells.map((x, i) => make(
    i && tag === "td" ? "td" : "th", { scope: tag === "th" ? "col" : "row" }, x)));
  return make("div", { class: "wide" }, make("table", {}, make("caption", {}, caption),
    make("thead", {}, line(header, "th")), make("tbody", {}, ...rows.map((row) => line(row, "td")))));
}

function logged() {
  const { collected, added, learned, size, record, logged: whole } = look();
  const own = (key) => (record ? [Number.isFinite(record[key]) ? fixed(record[key], 4) : "none"] : []);
  const rollout = Object.entries(collected).map(([key, x]) => [key, fixed(x, 4), key in added ? fixed(added[key], 4) : "", ...own(key)]);
  const update = Object.keys(learned[0]).map((key) => [key, ...learned.map((x) => fixed(x[key], 4)), key in whole ? fixed(whole[key], 4) : "", ...own(key)]);
  const last = record ? ["metrics.jsonl"] : [];
  return make("section", { class: "logged" }, make("h2", {}, "What this update logged"),
    table(`The rollout of ${size} responses: as logged, and added up again from the numbers of all their tokens`,
          ["ppo.collect", "logged", "from the tokens", ...last], rollout),
    table("The update: means over the minibatches of an epoch, each seen just before its own step",
          ["ppo.update", ...learned.map((x, i) => `epoch ${i + 1}`), "all", ...last], update));
}

// What the update after training has of the first one, and what no run has.
const again = () => "The first update's prompts, answered by the finished policy. Adam and the learning rate, " +
  `${look().lr}, begin anew, so that the two updates differ in the policy alone; by default a run's rate falls, ` +
  `and its last steps are far smaller.`;

// ---------------------------------------------------------------- what changes

function build() {
  const scope = document.getElementById("scope"), rows = make("div", { class: "rows" });
  rows.append(make("p", { class: "quiet", id: "rule" },
    `${look().rows.length} of ${look().size} responses, at evenly spaced ranks of the score. ` +
    "Arrow keys go from token to token. ␣ a space, ✕ clipped, • changes in the update."), ...look().rows.map(response));
  scope.replaceChildren(controls(), make("p", { class: "quiet" }, look().says || again()), slider(),
    make("div", { class: "both" }, rows, make("aside", { id: "panel", "aria-label": "The token's numbers" })), logged());
}

function draw(focus = false) {
  if (document.body.dataset.look !== pick.look) {   // the other update: other responses
    document.body.dataset.look = pick.look;
    clamp();
    build();
    const again = document.querySelector(`input[name=look][value="${pick.look}"]`);
    if (again && !focus && document.body.dataset.begun) again.focus();
    document.body.dataset.begun = "yes";
  }
  clamp();
  for (const name of ["look", "quantity"])
    for (const input of document.querySelectorAll(`input[name=${name}]`)) input.checked = input.value === pick[name];
  describe();
  document.querySelectorAll(".cell").forEach(paint);
  panel(pick.row, pick.token);
  if (focus) document.querySelector(`.cell[data-row="${pick.row}"][data-token="${pick.token}"]`).focus();
  remember();
}

function subscripts(formula) {   // what stands after _
  return formula.split(/_(t\+1|t|ref|old)/).map((part, i) => (i % 2 ? make("sub", {}, part) : part));
}

function clamp() {
  const inside = (x, most) => Math.max(0, Math.min(Number.isInteger(x) ? x : 0, most));
  pick.epoch = inside(pick.epoch, last());
  pick.row = inside(pick.row, look().rows.length - 1);
  pick.token = inside(pick.token, look().rows[pick.row].tokens.length - 1);
}

function describe() {
  const [key, , name, says, formula, by] = QUANTITIES.find((q) => q[0] === pick.quantity);
  document.getElementById("about").replaceChildren(make("strong", {}, name), ` ${says} `,
    make("span", { class: "formula" }, ...subscripts(formula)), " ", make("code", {}, by));
  const input = document.getElementById("epoch"), mean = look().means[key];
  input.value = pick.epoch;
  input.setAttribute("aria-valuetext", when(pick.epoch));
  document.getElementById("when").textContent = when(pick.epoch);
  const average = mean[Math.min(pick.epoch, mean.length - 1)];
  document.getElementById("mean").textContent = `over all ${look().tokens.toLocaleString("en")} tokens: ` +
    (key === "clipped" ? `${fixed(100 * average, 1)} % clipped` : key === "share" ? "mean size 1×" : `mean ${shown(key, average)}`) +
    (moves(key) ? "" : "; an update leaves it as it is");
  document.getElementById("legend").replaceChildren(...(key === "clipped" ? [] :
    [`${shown(key, middle(key) - limit(key))} or less`, make("i"), `${shown(key, middle(key) + limit(key))} or more`]));
}

function paint(cell) {
  const row = look().rows[cell.dataset.row], t = Number(cell.dataset.token), key = pick.quantity;
  const x = number(row, key, t, pick.epoch), w = strength(key, x);
  const clipped = number(row, "clipped", t, pick.epoch) === 1;
  cell.style.setProperty("--weight", `${Math.round(100 * Math.abs(w))}%`);
  cell.classList.toggle("plus", w > 0);
  cell.classList.toggle("clipped", clipped);
  cell.lastChild.textContent = (clipped ? "✕ " : "") + shown(key, x);
  const here = Number(cell.dataset.row) === pick.row && t === pick.token;
  cell.classList.toggle("here", here);
  cell.tabIndex = t === (Number(cell.dataset.row) === pick.row ? pick.token : 0) ? 0 : -1;
  cell.setAttribute("aria-label", `${row.tokens[t]}, token ${t + 1} of ${row.tokens.length}, ` +
    `${NAMES[key]} ${shown(key, x)}${clipped && key !== "clipped" ? ", clipped" : ""}`);
}

function panel(i, t) {
  const row = look().rows[i], states = [...Array(last() + 1).keys()];
  const head = make("div", { class: "head" }, make("span"), ...states.map((s) => make("span",
    { class: s === pick.epoch ? "now" : "" }, s ? `epoch ${s}` : "before")));
  const lines = QUANTITIES.map(([key, , name]) => make("div", { class: key === pick.quantity ? "line picked" : "line" },
    make("dt", {}, name.split(" ")[0]), ...(moves(key) ? states : [0]).map((s) => make("dd",
      { class: !moves(key) ? "now stays" : s === pick.epoch ? "now" : "" }, shown(key, number(row, key, t, s))))));
  document.getElementById("panel").replaceChildren(make("h3", {}, word(row.tokens[t]),
    make("span", { class: "quiet" }, ` token ${t + 1} of ${row.tokens.length}, response ${i + 1}`)),
    make("dl", { style: `--states: ${states.length}` }, head, ...lines), make("p", { class: "worked" }, worked(row, t)));
}

// ---------------------------------------------------------------- keys, and the address

function select(i, t) {
  pick.row = i;
  pick.token = t;
  document.querySelectorAll(".cell").forEach(paint);
  panel(i, t);
  remember();
}

function step(event) {
  const rows = look().rows, ends = { Home: 0, End: rows[pick.row].tokens.length - 1 };
  const sideways = { ArrowLeft: -1, ArrowRight: 1 }[event.key], down = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key in ends) pick.token = ends[event.key];
  else if (sideways) pick.token += sideways;
  else if (down) pick.row += down;
  else return;
  event.preventDefault();
  draw(true);
}

function remember() {
  const hash = `#update=${pick.look}&quantity=${pick.quantity}&epoch=${pick.epoch}&token=${pick.row + 1}.${pick.token + 1}`;
  try { history.replaceState(null, "", hash); } catch { /* a frame may forbid it */ }
}

function recall() {
  const asked = new URLSearchParams(location.hash.slice(1)), [row, token] = (asked.get("token") || "").split(".");
  if (Object.hasOwn(LOOKS, asked.get("update"))) pick.look = asked.get("update");
  if (Object.hasOwn(NAMES, asked.get("quantity"))) pick.quantity = asked.get("quantity");
  if (asked.has("epoch")) pick.epoch = Number(asked.get("epoch"));
  if (asked.has("token")) [pick.row, pick.token] = [Number(row) - 1, Number(token) - 1];
  draw();
}

window.addEventListener("hashchange", recall);
recall();
