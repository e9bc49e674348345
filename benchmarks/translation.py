"""How near models come to the true texts: chrF and BLEU of the whole corpus, greedy and sampled. A Markdown
table.

All held-out rows with a prompt of their own that fits the first model (of the part "test", which no stage
learns from) are answered once by each model. Both figures are sacrebleu's: chrF2, and BLEU (13a tokens, upper
and lower case kept). The table begins with the prompt itself: what an answer gets that changes nothing.

With --reward it ends with what that reward model takes for the best of 16 sampled answers of the first
model: what its score knows of both figures.

--pairs FILE writes preferences in place of that: of the rows that rate in other data (60 and 30 of 100), the
true text is chosen and the first model's own sampled answer rejected. An answer that was cut off is left out:
that it does not end would give it away. train_reward.py --data FILE learns to tell true from model-made.
"""

import json
import sys
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from minippo import data
from minippo.corpora.read import read
from minippo.generation import generate
from minippo.policy import ActorCritic
from minippo.run import checkpoint
from minippo.run.devices import pick_device, place
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.files import write_atomically
from minippo.run.flags import DeviceConfig, option, words
from minippo.run.rows import fitting
from minippo.run.stage_3 import Stage3
from minippo.tokens import pad_left
from minippo.tools.shared.comparison import AT_ONCE, best, draw
from minippo.tools.shared.tables import markdown

BEST_OF = 16


@dataclass
class Config(DeviceConfig):
    GROUP = "what is translated"
    models: tuple = words(("runs/verses-pretrain", "runs/verses"), "folders of models, of stage 1 or 3")
    data: str = option("verses", "rows of a prompt and the true text")
    length: int = option(72, "tokens of an answer, at most", low=1)
    temperature: float = option(0.8, "of the sampled answers", low=0.01)
    count: int = option(0, "so many of the held-out rows, or of those for --pairs; 0 = all", low=0)
    reward: str = option("", "folder of a reward model that also takes the best of 16 answers")
    pairs: str = option("", "only write pairs, true against model-made, to this file")


def main(config):
    if config.pairs:
        return write_pairs(config)
    try:
        import sacrebleu
    except ImportError:
        raise UserError("this needs sacrebleu: pip install sacrebleu") from None
    rows = answerable(config, data.split(read(config.data)), "test")[:config.count or None]
    truths, found = [row.text for row in rows], []

    def near(name, how, texts, ended):
        figures = (f"{measure(texts, [truths]).score:.2f}"
                   for measure in (sacrebleu.corpus_chrf, sacrebleu.corpus_bleu))
        found.append((name, how, *figures, f"{mean_words(texts):.1f}", ended))

    near("the prompt itself", "", [row.prompt.strip() for row in rows], "")
    for name in config.models:
        for how, top_k in (("greedy", 1), ("sampled", 0)):
            texts, ended = answers(config, name, rows, top_k)
            near(name, how, texts, f"{fmean(ended):.0%}")
    if config.reward:
        reward_model = checkpoint.load_both(config.models[0], config.reward)[1].eval()
        texts, ended = answers(config, config.models[0], rows, 0, reward_model)
        near(config.models[0], f"best of {BEST_OF} by {config.reward}", texts, f"{fmean(ended):.0%}")
    print(markdown(("model", "", "chrF", "BLEU", "words", "ended"), found))
    print(f"\n{len(rows)} rows; the true texts have {mean_words(truths):.1f} words")


def answerable(config, parts, *names):
    """The rows of the parts so named that have a prompt of their own, which fits into the first model."""
    lm, tokenizer = checkpoint.load_lm(config.models[0])
    fit = fitting(parts, tokenizer, **dict.fromkeys(names, lm.config.context - config.length))
    rows = [row for name in names for row in fit[name] if row.prompt]
    if not rows:
        raise UserError(f"{config.data}: no row of {' or '.join(names)} has a prompt of its own; name data "
                        "of pairs")
    return rows


def write_pairs(config):
    rows = answerable(config, data.split(read(config.data)), "reward", "judge")[:config.count or None]
    given = answers(config, config.models[0], rows, 0)
    pairs = [replace(row, rejected=text) for row, text, ended in zip(rows, *given)
             if ended and text.strip() and text != row.text]
    write_atomically(config.pairs, as_jsonl(pairs).encode())
    print(f"written: {config.pairs}, {len(pairs):,} pairs; {len(rows) - len(pairs):,} of {len(rows):,} "
          "answers were cut off, empty or the true text")


def as_jsonl(rows):
    """Pairs as train_reward.py --data reads them."""
    return "".join(json.dumps({"prompt": row.prompt, "chosen": row.text, "rejected": row.rejected,
                               "group": row.group}) + "\n" for row in rows)


@torch.no_grad()
def answers(config, name, rows, top_k, reward_model=None):
    """A model's answer to the prompt of each row, and whether it ends: two lists.

    With a reward model: of several answers that end the one with the highest score.
    """
    lm, tokenizer = checkpoint.load_lm(name)
    device, n = pick_device(config.device), BEST_OF if reward_model else 1
    for model in filter(None, (lm, reward_model)):
        place(model, device, config.precision)
    examples = data.encode(rows, tokenizer, lm.config.context - config.length)
    actor = ActorCritic(lm, temperature=config.temperature)
    paying = Stage3(response_length=config.length, missing_end_score=-torch.inf)
    generator, texts, ended = torch.Generator().manual_seed(config.seed), [], []
    step = AT_ONCE // n
    for i in range(0, len(rows), step):
        query = pad_left([query for query, _ in examples[i:i + step]]).to(device)
        if reward_model:
            response = best(*draw(actor, reward_model, query, n, paying, generator), n)
        else:
            response = generate(lm, query, config.length, config.temperature, top_k, generator=generator)
        texts += [tokenizer.decode(row) for row in response]
        ended += (response == lm.end).any(1).tolist()
        if i // step % 10 == 9:   # half a minute's work
            print(f"{name}: {len(texts):,} of {len(rows):,} answers", file=sys.stderr, flush=True)
    return texts, ended


def mean_words(texts):
    return sum(len(text.split()) for text in texts) / len(texts)


if __name__ == "__main__":
    launch(main, Config, __doc__.splitlines()[0])
