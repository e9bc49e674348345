"""How near models come to the true texts: chrF and BLEU of the whole corpus, greedy and sampled. A Markdown
table.

All held-out rows with a prompt of their own that fits the first model (of the part "test", which no stage
learns from) are answered once by each model. Both figures are sacrebleu's: chrF2, and BLEU (13a tokens, upper
and lower case kept).
"""

from dataclasses import dataclass

import torch

from minippo import data
from minippo.corpora.read import read
from minippo.generation import generate
from minippo.run import checkpoint
from minippo.run.devices import pick_device, place
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import DeviceConfig, option, words
from minippo.run.rows import fitting
from minippo.tokens import pad_left
from minippo.tools.shared.comparison import AT_ONCE
from minippo.tools.shared.tables import markdown


@dataclass
class Config(DeviceConfig):
    GROUP = "what is translated"
    models: tuple = words(("runs/verses", "runs/verses-ppo"), "folders of models, of stage 1 or 3")
    data: str = option("verses", "rows of a prompt and the true text")
    length: int = option(72, "tokens of an answer, at most", low=1)
    temperature: float = option(0.8, "of the sampled answers", low=0.01)
    count: int = option(0, "so many of the held-out rows; 0 = all", low=0)


def main(config):
    try:
        import sacrebleu
    except ImportError:
        raise UserError("this needs sacrebleu: pip install sacrebleu") from None
    lm, tokenizer = checkpoint.load_lm(config.models[0])
    fit = fitting(data.split(read(config.data)), tokenizer, test=lm.config.context - config.length)
    rows = [row for row in fit["test"] if row.prompt][:config.count or None]
    if not rows:
        raise UserError(f"{config.data}: no held-out row has a prompt of its own; name data of pairs")
    truths, found = [row.text for row in rows], []
    for name in config.models:
        for how, top_k in (("greedy", 1), ("sampled", 0)):
            texts, ended = answers(config, name, rows, top_k)
            found.append((name, how, f"{sacrebleu.corpus_chrf(texts, [truths]).score:.2f}",
                          f"{sacrebleu.corpus_bleu(texts, [truths]).score:.2f}",
                          f"{mean_words(texts):.1f}", f"{ended:.0%}"))
    print(markdown(("model", "", "chrF", "BLEU", "words", "ended"), found))
    print(f"\n{len(rows)} rows; the true texts have {mean_words(truths):.1f} words")


@torch.no_grad()
def answers(config, name, rows, top_k):
    """A model's answer to the prompt of each row, and the share of them that end: texts, a number."""
    lm, tokenizer = checkpoint.load_lm(name)
    place(lm, pick_device(config.device), config.precision)
    examples = data.encode(rows, tokenizer, lm.config.context - config.length)
    generator, texts, ended = torch.Generator().manual_seed(config.seed), [], 0
    for i in range(0, len(rows), AT_ONCE):
        query = pad_left([query for query, _ in examples[i:i + AT_ONCE]]).to(lm.embedding.weight.device)
        response = generate(lm, query, config.length, config.temperature, top_k, generator=generator)
        texts += [tokenizer.decode(row) for row in response]
        ended += (response == lm.end).any(1).sum().item()
    return texts, ended / len(rows)


def mean_words(texts):
    return sum(len(text.split()) for text in texts) / len(texts)


if __name__ == "__main__":
    launch(main, Config, __doc__.splitlines()[0])
