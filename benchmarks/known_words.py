"""Can people read what a language model writes? The share of its words that stand in its training texts, as a
Markdown table.

A row per folder of stage 1, a column per temperature; nats per character of held-out texts beside them, and
below the same share of the words that people wrote in held-out texts. Half a word at the end of a response
that was cut off does not count.
"""

import re
from dataclasses import dataclass

import torch

from minippo.corpora.read import read
from minippo.data import Prompts, split
from minippo.generation import generate
from minippo.run import checkpoint, rows
from minippo.run.devices import pick_device, place
from minippo.run.exits import launch
from minippo.run.flags import DeviceConfig, numbers, option, words
from minippo.tools.shared import samples
from minippo.tools.shared.tables import markdown

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
AT_ONCE = 256


@dataclass
class Config(DeviceConfig):
    GROUP = "what is measured"
    models: tuple = words(("runs/pretrain",), "folders of stage 1")
    data: str = option("movies", "what they learned from")
    temperatures: str = option("1,0.8,0.6", "temperatures, with commas between them")
    top_p: float = option(1.0, "nucleus: the likeliest tokens up to this mass", low=0.01, high=1)
    count: int = option(1024, "responses at each temperature", low=1)
    length: int = option(24, "tokens of a response, at most", low=1)


def main(config):
    """Print the table."""
    parts = split(read(config.data))
    temperatures = numbers(config.temperatures, float, 0.01)
    known = {word for row in parts["reward"] + parts["judge"] for word in words_of(row.prompt + row.text)}
    table = [row(config, folder, parts, known, temperatures) for folder in config.models]
    people = [word for row in parts["prompts"] + parts["test"] for word in words_of(row.text)]
    table.append(["people's held-out texts", "", *[""] * (len(temperatures) - 1), share(people, known)])
    heads = [f"known words at temperature {t:g}" for t in temperatures]
    print(markdown(["model", "held-out nats per character", *heads], table))


def row(config, folder, parts, known, temperatures):
    """Cells of one model."""
    lm, tokenizer = checkpoint.load_lm(folder)
    lm, context = place(lm.eval(), pick_device(config.device), config.precision), lm.config.context
    held_out = rows.fitting(parts, tokenizer, prompts=context - config.length, test=context - config.length)
    held_out = held_out["prompts"] + held_out["test"]
    nats = re.search(r"([\d.]+) per character", samples.held_out_loss(lm, held_out, tokenizer))[1]
    prompts = Prompts(held_out, tokenizer, 1, 8, context - config.length)
    return [folder, nats, *(share(written(config, lm, tokenizer, prompts, t), known) for t in temperatures)]


def written(config, lm, tokenizer, prompts, temperature):
    """All words of the responses, those that begin in the prompt included."""
    generator, found = torch.Generator().manual_seed(config.seed), []
    for part in prompts.sample(config.count, generator, lm.embedding.weight.device).split(AT_ONCE):
        response = generate(lm, part, config.length, temperature, top_p=config.top_p, generator=generator)
        for given, tokens in zip(part, response):
            before, text = tokenizer.decode(given), tokenizer.decode(tokens)
            found += new_words(before, text, ended=bool((tokens == lm.end).any()))
    return found


def new_words(before, text, ended):
    """Words of a text that reach beyond what was given before it, without a last one that was cut off."""
    both = (before + text).lower()
    found = [match for match in WORD.finditer(both) if match.end() > len(before)]
    if not ended and found and found[-1].end() == len(both):
        found.pop()
    return [match.group() for match in found]


def words_of(text):
    return WORD.findall(text.lower())


def share(found, known):
    return f"{sum(word in known for word in found) / max(1, len(found)):.1%}"


if __name__ == "__main__":
    launch(main, Config, __doc__.splitlines()[0])
