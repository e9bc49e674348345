"""Before and after: the reference's and the policy's responses to the same held-out prompts."""

import json

import torch

from minippo.memory import in_microbatches
from minippo.run.files import write_atomically
from minippo.tokens import PAD
from minippo.tools.words import Judge

SAMPLES = 512   # responses of each model behind the figures
SHOWN = 6       # of them in the table


def report(policy, reference, reward_model, prompts, run, tokenizer):
    """Figures and a table as text; both also go to `comparison.json` in the run's folder.

    policy, reference   ActorCritics; high scores of the reward model = positive, whatever the target
    prompts             Prompts that PPO did not see
    run                 the Run of stage 3: the judge learns from its rows "judge", and is measured on
                        "prompts" and "test"
    """
    config, rows = run.config, run.rows
    generator = torch.Generator().manual_seed(config.seed)
    query = prompts.sample(SAMPLES, generator, run.device)
    rated = all(any(row.votes for row in rows[part]) for part in ("judge", "prompts"))
    judge = Judge(rows["judge"], rows["prompts"] + rows["test"]) if rated else None
    figures, texts, scores = {}, {}, {}
    for name, model in [("reference", reference), ("policy", policy)]:
        response = model.generate(query, config.response_length, generator)
        figures[name], texts[name], scores[name] = measure(
            model, reference, reward_model, judge, query, response, tokenizer, config.microbatch_size)
    if judge:
        figures["judge_accuracy"] = judge.accuracy
    kept = figures | {"samples": samples(query, texts, scores, tokenizer)}
    write_atomically(run.folder / "comparison.json", json.dumps(kept, indent=2).encode())
    text = table(kept["samples"]) + "\n\n" + lines(figures)
    if config.missing_end_score and (ended := figures["policy"]["ended"]) < 0.1:
        text += (f"\n\nnote: {ended:.0%} of the responses end by themselves, and all others are "
                 "paid the same; raise --response-length, or give --missing-end-score 0")
    return text


@torch.no_grad()
def measure(model, reference, reward_model, judge, query, response, tokenizer, size):
    """Figures (a dict), texts and scores of a model's responses."""
    logprobs, reference_logprobs = (
        in_microbatches(x, query, response, size)[0] for x in (model, reference))
    scores = reward_model(query, response).tolist()
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


def distinct(texts, n):
    """Different runs of n words as a share of all: low = the same ones again (Li et al. 2016)."""
    runs = [run for words in map(str.split, texts) for run in zip(*(words[i:] for i in range(n)))]
    return len(set(runs)) / max(1, len(runs))


def samples(query, texts, scores, tokenizer):
    """The first prompts with what each model made of them: a list of dicts that JSON holds."""
    return [{"prompt": tokenizer.decode(query[i]),
             **{name: {"score": scores[name][i], "text": texts[name][i]} for name in texts}}
            for i in range(min(SHOWN, len(query)))]


def table(samples):
    rows = []
    for sample in samples:
        rows.append(f"{sample['prompt']} ...")
        rows += [f"  {name:>9} {x['score']:+.2f}  {x['text'].strip()}"
                 for name, x in sample.items() if name != "prompt"]
    return "\n".join(rows)


def lines(figures):
    """One line for the reference, one for the policy."""
    accuracy = f" (accuracy {figures['judge_accuracy']:.2f})" if "judge_accuracy" in figures else ""
    return "\n".join(
        f"{name:>9}: score {f['score']:+.2f}"
        + (f", judged positive {f['judged_positive']:.0%}{accuracy}" if "judged_positive" in f
           else "")
        + f", KL {f['kl']:.2f}, distinct-2 {f['distinct_2']:.2f}"
        + f", length {f['length']:.1f}, ended {f['ended']:.0%}"
        for name, f in figures.items() if name in ("reference", "policy"))
