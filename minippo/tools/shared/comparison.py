"""Before and after: the reference's and the policy's responses to the same held-out prompts."""

import json
import math

import torch

from minippo.memory import in_microbatches
from minippo.run.files import write_atomically
from minippo.run.scoring import SIGNS
from minippo.tokens import PAD, joined, totals
from minippo.tools.shared.tables import flat
from minippo.tools.shared.words import Judge

SAMPLES = 512   # responses of each model behind the figures
SHOWN = 6       # of them in the table
DRAWS = 4096    # responses of the reference for best of n, in all: a twentieth of the stage's time
COUNTS = (1, 2, 4, 8, 16, 32, 64)   # values of n in best of n
AT_ONCE = 256   # responses sampled together: more take no less time, and more memory


def report(policy, reference, reward_model, prompts, run, tokenizer):
    """Figures and a table as text; both also go to `comparison.json` in the run's folder.

    policy, reference   ActorCritics; high scores of the reward model = positive, whatever the target
    prompts             Prompts that PPO did not see
    run                 the Run of stage 3: the judge learns from its rows "judge", and is measured on
                        "prompts" and "test"
    """
    config = run.config
    generator = torch.Generator().manual_seed(config.seed)
    query = prompts.sample(SAMPLES, generator, run.device)
    judge = judge_of(run.rows)
    figures, texts, scores = {}, {}, {}
    for name, model in [("reference", reference), ("policy", policy)]:
        response = model.generate(query, config.response_length, generator)
        figures[name], texts[name], scores[name] = measure(
            model, reference, reward_model, judge, query, response, tokenizer, config.microbatch_size)
    best = rival(reference, reward_model, judge, query, tokenizer, config, generator, figures["policy"]["kl"])
    few = best["prompts"]
    best["policy"] = measure(policy, reference, reward_model, judge, query[:few], response[:few], tokenizer,
                             config.microbatch_size)[0]   # on other prompts its figures are others
    figures["best_of_n"] = best
    if judge:
        figures["judge_accuracy"] = judge.accuracy
    shown = samples(query, texts, scores, tokenizer)
    kept = figures | {"samples": [{"prompt": prompt} | responses for prompt, responses in shown]}
    write_atomically(run.folder / "comparison.json", json.dumps(kept, indent=2).encode())
    text = table(shown) + "\n\n" + lines(figures)
    if config.missing_end_score and (ended := figures["policy"]["ended"]) < 0.1:
        text += (f"\n\nnote: {ended:.0%} of the responses end by themselves, and all others are "
                 "paid the same; raise --response-length, or give --missing-end-score 0")
    return text


def judge_of(parts):
    """A Judge of the rows by part; None if they have no ratings."""
    rated = all(any(row.votes for row in parts[part]) for part in ("judge", "prompts"))
    return Judge(parts["judge"], parts["prompts"] + parts["test"]) if rated else None


@torch.no_grad()
def measure(model, reference, reward_model, judge, query, response, tokenizer, size):
    """Figures (a dict), texts and scores of a model's responses."""
    logprobs, reference_logprobs = (
        in_microbatches(x, query, response, size)[0] for x in (model, reference))
    scores = totals(reward_model(query, response), response != PAD).tolist()
    texts = [tokenizer.decode(row) for row in response]
    figures = {
        "score": sum(scores) / len(scores),
        "kl": (logprobs - reference_logprobs).sum(1).mean().item(),
        "distinct_2": distinct(texts, 2),
        "length": (response != PAD).sum(1).float().mean().item(),
        "ended": (response == model.end).any(1).float().mean().item(),
    }
    if judge:
        figures["judged_positive"] = judge.positive(texts).float().mean().item()
    return figures, texts, scores


def rival(reference, reward_model, judge, query, tokenizer, config, generator, kl):
    """Figures of best of n, n such that its KL is nearest to the policy's: what no training reaches there.

    query   (P, Q); of the first DRAWS / n of them n responses each are drawn
    kl      the policy's KL from the reference, nats
    """
    n = min(COUNTS, key=lambda n: abs(best_of_kl(n) - kl))
    query = query[:DRAWS // n]
    response, paid = draw(reference, reward_model, query, n, config, generator)
    figures = measure(reference, reference, reward_model, judge, query, best(response, paid, n), tokenizer,
                      config.microbatch_size)[0]
    return {"n": n, "prompts": len(query)} | figures | {"kl": best_of_kl(n)}


def best_of_kl(n):
    """KL of the best of n from the reference, ln n - (n - 1) / n nats; ties make it smaller.

    Source   Stiennon et al. 2020, appendix G.3 (arXiv:2009.01325)
    """
    return math.log(n) - (n - 1) / n


@torch.no_grad()
def draw(reference, reward_model, query, count, config, generator):
    """`count` responses of the reference to each of P queries, and what PPO is paid for them.

    config   that of stage 3, or one with its response_length, target and missing_end_score
    Returns  response (P, count, R), paid (P, count)
    """
    responses, paid = [], []
    for part in query.repeat_interleave(count, 0).split(AT_ONCE):
        responses.append(reference.generate(part, config.response_length, generator))
        ended = (responses[-1] == reference.end).any(1)
        sought = SIGNS[config.target] * totals(reward_model(part, responses[-1]), responses[-1] != PAD)
        paid.append(payment(sought, ended, config.missing_end_score))
    return joined(responses, fill=PAD).unflatten(0, (-1, count)), torch.cat(paid).unflatten(0, (-1, count))


def payment(sought, ended, missing_end_score):
    """What PPO is paid for responses (B,): what it seeks, or a fixed number if they were cut off."""
    return sought.masked_fill(~ended, missing_end_score) if missing_end_score else sought


def best(response, paid, n):
    """(P, R): of the first n responses (P, N, R) to each query the one that is paid most, paid (P, N)."""
    return response[torch.arange(len(response)), paid[:, :n].argmax(1)]


def distinct(texts, n):
    """Different runs of n words as a share of all: low = the same ones again (Li et al. 2016)."""
    runs = [run for words in map(str.split, texts) for run in zip(*(words[i:] for i in range(n)))]
    return len(set(runs)) / max(1, len(runs))


def samples(query, texts, scores, tokenizer, count=SHOWN):
    """The first prompts with what each model made of them: pairs (prompt, {model: {"score", "text"}})."""
    return [(tokenizer.decode(query[i]),
             {name: {"score": scores[name][i], "text": texts[name][i]} for name in texts})
            for i in range(min(count, len(query)))]


def table(samples):
    """Each prompt with what every model made of it, and the score of that."""
    rows = []
    for prompt, responses in samples:
        wide = max(map(len, responses))
        rows.append(flat(prompt.rstrip("\n")) + " ...")   # the new line after a turn of a dialogue
        rows += [f"  {name:>{wide}} {x['score']:+.2f}  {flat(x['text'].strip()) or '(empty)'}"
                 for name, x in responses.items()]
    return "\n".join(rows)


def lines(figures):
    """Lines for the reference and the policy; then for the policy and best of n on the same few prompts."""
    accuracy = f" (accuracy {figures['judge_accuracy']:.2f})" if "judge_accuracy" in figures else ""
    found = [line(name, figures[name], accuracy) for name in ("reference", "policy")]
    if best := figures.get("best_of_n"):
        found += [f"on {best['prompts']} of these prompts, beside the best of {best['n']} of the reference:",
                  line("policy", best["policy"]), line(f"best of {best['n']}", best)]
        if figures["policy"]["kl"] > best_of_kl(COUNTS[-1]):
            found[-1] += f" (the policy's KL is beyond that of best of {COUNTS[-1]})"
    return "\n".join(found)


def line(name, figures, accuracy=""):
    """One line of the report: a model's name and its figures, as `measure` gives them."""
    judged = (f", judged positive {figures['judged_positive']:.0%}{accuracy}"
              if "judged_positive" in figures else "")
    return (f"{name:>10}: score {figures['score']:+.2f}{judged}, KL {figures['kl']:.2f}, distinct-2 "
            f"{figures['distinct_2']:.2f}, length {figures['length']:.1f}, ended {figures['ended']:.0%}")
