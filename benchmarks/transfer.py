"""What a reward model learned on one kind of text is worth on another: accuracy on held-out comparisons. A
Markdown table.

A row per --data that the reward models were trained on (seeds make its spread: mean, smallest and largest), a
column per kind of text: fresh comparisons of texts that no stage trained on, one vote each, ties dropped.
Below them a bag of words fit on each kind's own comparisons, and people's ceiling.
"""

from dataclasses import dataclass

import torch

from minippo.corpora.read import read
from minippo.data import Comparisons, split
from minippo.run import checkpoint, rows
from minippo.run.devices import pick_device, place
from minippo.run.exits import launch
from minippo.run.flags import DeviceConfig, option, words
from minippo.tools.shared import calibration, runs
from minippo.tools.shared.tables import markdown, spread
from train_reward import Config as Stage2


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
    table = []
    for trained, each in found.items():
        shares = [[x["accuracy"] for x in column] for column in zip(*each)]
        table.append((f"{trained} ({len(each)})", *(spread(share, 3) for share in shares)))
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
    groups = training.groups(Stage2.group_size, Stage2.passes, generator)   # of one vote
    return calibration.measure(model, training, groups, fresh, generator, config.count)


if __name__ == "__main__":
    launch(main, Config, __doc__.splitlines()[0])
