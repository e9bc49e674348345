"""What a reward model learned on one kind of text is worth on another: accuracy on held-out comparisons. A
Markdown table.

A row per --data that the reward models were trained on (seeds make its spread: mean, smallest and largest), a
column per kind of text: fresh comparisons of texts that no stage trained on, one vote each, ties dropped.
Below them a bag of words fit on each kind's own comparisons, and people's ceiling.
"""

from dataclasses import dataclass
from statistics import fmean

import torch

from minippo.corpora.read import read
from minippo.data import Comparisons, split
from minippo.run import checkpoint, rows
from minippo.run.devices import pick_device, place
from minippo.run.exits import launch
from minippo.run.flags import DeviceConfig, option, words
from minippo.tools.shared import calibration, runs
from minippo.tools.shared.tables import markdown


@dataclass
class Config(DeviceConfig):
    GROUP = "what is compared"
    rewards: tuple = words(("runs/reward",), "folders of reward models, of any data and seed")
    data: str = option("movies,amazon,nyt", "kinds of text, with commas between")
    count: int = option(20_000, "comparisons of each, ties included", low=2)


def main(config):
    kinds, found = config.data.split(","), {}
    for folder in config.rewards:
        trained = runs.settings(folder).get("data", "?")
        found.setdefault(trained, []).append([transferred(config, folder, kind) for kind in kinds])
    table = [(f"{trained} ({len(each)})", *(spread([x["accuracy"] for x in column]) for column in zip(*each)))
             for trained, each in found.items()]
    first = next(iter(found.values()))[0]
    for name, key in (("bag of words of that kind", "bag_of_words"), ("people's ceiling", "ceiling")):
        table.append((name, *(f"{x[key]:.3f}" if key in x else "-" for x in first)))
    print(markdown(("reward model of", *kinds), table))


def transferred(config, folder, kind):
    """The figures of `calibration.measure` of a reward model on a kind of text."""
    model, tokenizer = checkpoint.load_reward(folder)
    model, context = place(model, pick_device(config.device), config.precision), model.lm.config.context
    parts = rows.fitting(split(read(kind)), tokenizer, reward=context, prompts=context, test=context)
    training = Comparisons(parts["reward"], tokenizer, context)
    fresh = Comparisons(parts["prompts"] + parts["test"], tokenizer, context)
    generator = torch.Generator().manual_seed(config.seed)   # the same comparisons for every reward model
    groups = training.groups(32, 3, generator)               # as many as train_reward.py makes by default
    return calibration.measure(model, training, groups, fresh, generator, config.count)


def spread(numbers):
    alone = f"{fmean(numbers):.3f}"
    return f"{alone} ({min(numbers):.3f} to {max(numbers):.3f})" if len(numbers) > 1 else alone


if __name__ == "__main__":
    launch(main, Config, __doc__.splitlines()[0])
