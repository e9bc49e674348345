"""One real update of PPO, token by token, as a page: what was sampled, paid, expected, and learned.

Everything is computed by the functions that train: `collect` makes the rollout, `update` takes the steps.
"""

import os
from dataclasses import dataclass, fields, replace

import torch

from minippo import data, ppo
from minippo.corpora.read import read
from minippo.memory import PPOMemory, Rollout, in_microbatches
from minippo.policy import ActorCritic
from minippo.run import checkpoint, rows, scoring
from minippo.run.devices import pick_device, use_bf16
from minippo.run.errors import UserError, printable
from minippo.run.flags import option, words
from minippo.tokens import masked_mean, totals
from minippo.tools.shared import page, runs

SETTINGS = {"data": str, "model": str, "reward": str, "temperature": float, "target": str, "lr": float,
            "shortest_prompt": int, "longest_prompt": int, "precision": str, "rollout_size": int,
            "separate_critic": bool, "kl_target": float,
            **{f.name: type(f.default) for f in fields(ppo.PPOConfig)}}
TITLES = {"start": "a first update, as training begins", "finished": "one more update, after training"}


@dataclass
class Config:
    run: tuple = words(("runs/ppo",), "folder of a finished run of stage 3")
    policy: str = option("both", "start: a first update, as training begins; finished: one more, after it",
                         choices=("both", *TITLES))
    model: str = option("", "folder of the pretrained model, if it is not where the run found it")
    reward: str = option("", "folder of the reward model, if it is not where the run found it")
    score: str = option("", "module:function that scored the run, if one did")
    data: str = option("", "the data, if it is not where the run found it; the prompts are of its test part")
    responses: int = option(8, "responses to show, at evenly spaced ranks of the score", low=1, high=64)
    rollout_size: int = option(0, "responses to sample and to learn from; 0 = as many as the run", low=0)
    lr: float = option(0.0, "learning rate of the update; 0 = the one that the run began with", low=0)
    seed: int = option(0, "fixes prompts, sampling and the order of minibatches", low=0, high=2**63 - 1)
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    out: str = option("microscope.html", "the page to write")


def main(config):
    """Look at an update or two of a run, and write the page."""
    if len(config.run) != 1:
        raise UserError(f"{len(config.run)} folders; name one run of stage 3")
    looks, tokenizer, settings = looks_of(config, config.run[0])
    given = {name: shown(x, tokenizer, config.responses, TITLES[name]) for name, x in looks.items()}
    body = (f"<p>One update of PPO on the models of <code>{page.escaped(config.run[0])}</code>, made by the "
            "functions that train; the prompts are held out. Adam and its learning rate, "
            f"{settings['lr']:g}, begin anew: a finished run keeps neither.</p>\n" '<div id="scope"></div>')
    page.write(config.out, page.page("PPO under the microscope", body, "microscope", looks=given))
    for x in given.values():
        print(f"{x['title']}: {x['size']} responses, {x['tokens']:,} tokens; "
              f"after it {x['means']['clipped'][-1]:.1%} of the tokens are clipped")
    print(f"written: {config.out}")


def looks_of(config, run):
    """Looks at the updates asked for, {name of TITLES: Look}, the Tokenizer, and the settings."""
    finished, its_tokenizer = checkpoint.load_policy(run)
    settings = settings_of(config, run)
    lm, reward_model, tokenizer = scoring.load_scored(settings["model"], settings["reward"], config.score)
    if lm.config != finished.lm.config or tokenizer.bpe.to_str() != its_tokenizer.bpe.to_str():
        raise UserError(f"{settings['model']}: not the model that {run} began with; name that: --model")
    device, sign = pick_device(config.device), scoring.SIGNS[settings["target"]]
    critic = scoring.critic_of(reward_model, lm, sign) if settings["separate_critic"] else None
    fresh = ActorCritic(lm, critic, settings["temperature"]).eval()
    models = [x for x in (reward_model, fresh, finished) if isinstance(x, torch.nn.Module)]
    for part in (part for model in models for part in model.to(device).modules()):
        if hasattr(part, "bf16"):
            part.bf16 = use_bf16(settings["precision"], device)
    reference, looks = fresh.reference(), {}
    room, parts = lm.config.context - settings["response_length"], data.split(read(settings["data"]))
    _, prompts = rows.prompts(parts, tokenizer, room, settings["shortest_prompt"], settings["longest_prompt"])
    query = prompts.sample(settings["rollout_size"], torch.Generator().manual_seed(config.seed)).to(device)
    for name in TITLES if config.policy == "both" else [config.policy]:
        ppo_config = ppo.PPOConfig(**{f.name: settings[f.name] for f in fields(ppo.PPOConfig)})
        if name == "finished" and settings["kl_target"]:   # it was steered: where it had come to
            ppo_config.kl_coef = runs.record(run, "objective/kl_coef")[-1]["objective/kl_coef"]
        looks[name] = look(fresh if name == "start" else finished, reference,
                           lambda *texts: sign * reward_model(*texts), query, ppo_config, settings["lr"],
                           torch.Generator().manual_seed(config.seed))
    return looks, tokenizer, settings


def settings_of(config, run):
    """The run's settings, or what was asked for instead, a dict; UserError if they or a model are missing."""
    found = runs.settings(run)
    for name, kind in SETTINGS.items():
        if not isinstance(found.get(name), (int, float) if kind is float else kind):
            raise UserError(f"{run}: its config.json has no setting {name} as finetune_ppo.py writes it: of "
                            "another version, or damaged; run the stage again")
        found[name] = getattr(config, name, None) or found[name]
    if found.get("score") and not (config.score or config.reward):   # only a flag has a function imported
        raise UserError(f"{run} was scored by {found['score']!r:.80}; give it by --score")
    for name in ("model",) if config.score else ("model", "reward"):
        if not os.path.isfile(os.path.join(found[name], "config.json")):
            raise UserError(f"{found[name]}: no model, and {run} was made from it; give --{name} FOLDER")
    return found


@dataclass
class Look:
    """An update and what it did. B responses of R tokens, S states: before it, and after each epoch."""
    rollout: Rollout
    config: ppo.PPOConfig
    scores: torch.Tensor    # (B,), what the policy seeks
    paid: torch.Tensor      # (B,)
    numbers: dict           # {quantity (see microscope.js): (S, B, R), or (1, B, R) if it stays}; 0 at PAD
    collected: dict         # what `collect` logs
    learned: list           # what `update` logs, a dict per epoch

    def means(self, key):
        """Mean over all tokens, a number per state; of the gradient's shares: of their sizes."""
        x = self.numbers[key].abs() if key == "share" else self.numbers[key]
        return [masked_mean(state, self.rollout.mask).item() for state in x]

    def added(self):
        """Metrics of the rollout, added up again from the numbers of tokens and responses."""
        kl, rewards = (self.numbers[name][0].sum(1).mean().item() for name in ("kl", "rewards"))
        return {"objective/scores": self.scores.mean().item(), "objective/paid": self.paid.mean().item(),
                "objective/kl": kl, "objective/rlhf_reward": rewards,
                "ppo/returns/mean": self.means("returns")[0], "ppo/val/mean": self.means("values")[0],
                "tokens/responses_len_mean": self.rollout.mask.sum(1).float().mean().item()}


def look(policy, reference, score, query, config, lr, generator):
    """Let the policy answer and learn from it, as one iteration of finetune_ppo.py does; a Look.

    An epoch at a time: epochs draw their orders from the one generator in turn, so it is the same update.
    """
    rollout, collected = ppo.collect(policy, reference, score, query, config, generator)
    memory = PPOMemory()
    memory.store(rollout)
    optimizer = torch.optim.Adam(policy.parameters(), lr, eps=1e-5, fused=True)
    states, learned = [state_of(policy, rollout, config)], []
    while len(learned) < config.epochs and not (learned and learned[-1]["ppo/early_stops"]):
        learned.append(ppo.update(policy, optimizer, memory, replace(config, epochs=1), generator))
        states.append(state_of(policy, rollout, config))
    old, kept, response = rollout.logprobs, rollout.reference_logprobs, rollout.response
    with torch.no_grad():
        scores = score(query, response)
    paid, _ = ppo.pay(scores, (response == policy.end).any(1), old, kept, rollout.mask, config)
    advantages, _ = ppo.gae(rollout.rewards, rollout.values, config.gamma, config.lam)
    deltas, _ = ppo.gae(rollout.rewards, rollout.values, config.gamma, lam=0)   # an advantage is one delta
    stays = {"reference": kept, "kl": ppo.kl_estimates(old, kept)[0], "rewards": rollout.rewards,
             "delta": deltas, "advantages": advantages, "whitened": rollout.advantages,
             "returns": rollout.returns}
    numbers = {key: x[None] for key, x in stays.items()} | {
        key: torch.stack([state[key] for state in states]) for key in states[0]}
    return Look(rollout, config, totals(scores, rollout.mask), paid, numbers, collected, learned)


def state_of(policy, rollout, config):
    """What the policy, as it is now, makes of every token of a rollout, {quantity: (B, R)}."""
    mask, old, advantages = rollout.mask, rollout.logprobs, rollout.advantages
    with torch.no_grad():
        logprobs, values, _ = in_microbatches(policy, rollout.query, rollout.response, config.microbatch_size)
    varied = logprobs.clone().requires_grad_(True)
    pull = -torch.autograd.grad(ppo.policy_loss(varied, old, advantages, mask, config.clip)[0], varied)[0]
    clipped = (pull == 0) & (advantages != 0) & mask   # the clipped branch is flat: a gradient of exactly 0
    return {"logprobs": logprobs, "values": values, "ratio": (logprobs - old).exp().masked_fill(~mask, 0),
            "clipped": clipped.float(), "share": pull / masked_mean(pull.abs(), mask).clamp(min=1e-30)}


def chosen(scores, count):
    """Places of `count` responses at evenly spaced ranks of their scores (B,), the highest first."""
    order = scores.argsort(descending=True, stable=True).tolist()
    steps = max(1, min(count, len(order)) - 1)
    return [order[round(i * (len(order) - 1) / steps)] for i in range(min(count, len(order)))]


def shown(found, tokenizer, count, title):
    """A Look as the page's script takes it: the chosen responses, and means over all."""
    def text(ids):
        return printable(tokenizer.decode(ids)).replace("\n", "\\n")

    def row(i):
        tokens = found.rollout.response[i][found.rollout.mask[i]].tolist()
        numbers = {key: [[float(f"{x:.6g}") for x in state[i, :len(tokens)].tolist()] for state in states]
                   for key, states in found.numbers.items()}
        return {"prompt": text(found.rollout.query[i]), "ended": tokenizer.end in tokens, "numbers": numbers,
                "tokens": ["⟨end⟩" if t == tokenizer.end else text([t]) for t in tokens],
                "score": found.scores[i].item(), "paid": found.paid[i].item()}
    picked, config = [row(i) for i in chosen(found.scores, count)], found.config
    return {"title": title, "rows": picked, "means": {key: found.means(key) for key in found.numbers},
            "beta": config.kl_coef, "clip": config.clip, "gamma": config.gamma, "lam": config.lam,
            "size": len(found.rollout), "tokens": int(found.rollout.mask.sum()),
            "collected": found.collected, "added": found.added(), "learned": found.learned}

