"""Does a dialogue agent answer what was said? By judges of pairs that the reward model never saw.

The first matches words of the turn with words of the reply. Fit on the pairs that the reward model learns
from, it is the baseline of its accuracy (which train_reward.py prints); fit on the part "judge", which the
reward model has not seen, it says how often a model's reply suits the turn better than the reference's (ties
half), and better than it suits another turn: "that's cool" suits all. --judge names a second one: a reward
model trained on pairs of that part, which --judge-data FILE writes for train_reward.py --data. Last come the
first --dialogues held-out turns with every reply.
"""

import random
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

import torch
import torch.nn as nn
import torch.nn.functional as F

from benchmarks.translation import answerable, answers, as_jsonl, mean_words
from minippo import data
from minippo.corpora.read import read
from minippo.corpora.rows import Row
from minippo.run import checkpoint
from minippo.run.devices import pick_device, place
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.files import write_atomically
from minippo.run.flags import DeviceConfig, option, words
from minippo.tools.compare import cell, won
from minippo.tools.shared import calibration
from minippo.tools.shared.comparison import distinct
from minippo.tools.shared.tables import markdown
from minippo.tools.shared.words import words as words_of

WIDTH, RATE, PASSES, BATCH = 256, 3e-3, 3, 512   # of the matcher: chosen on the part "judge", fit on "reward"


@dataclass
class Config(DeviceConfig):
    GROUP = "who replies to what"
    models: tuple = words(("runs/chat-pretrain", "runs/chat"), "folders of models: the reference first")
    data: str = option("chat", "pairs of replies, with prompts")
    judge: str = option("", "folder of a reward model trained on the part \"judge\"")
    judge_data: str = option("", "only write that part to this file, for train_reward.py --data")
    count: int = option(512, "held-out turns that each model replies to", low=2)
    length: int = option(30, "tokens of a reply, at most", low=1)
    temperature: float = option(0.8, "of the replies", low=0.01)
    dialogues: int = option(3, "turns whose replies are shown", low=0)


def main(config):
    parts = data.split(read(config.data))
    if not all(row.prompt and row.rejected for row in chain(*parts.values())):
        raise UserError(f"{config.data}: a judge of replies needs prompt, chosen and rejected in every row")
    if config.judge_data:
        write_atomically(config.judge_data, as_jsonl(parts["judge"]).encode())
        return
    held_out, rows = parts["prompts"] + parts["test"], answerable(config, parts, "test")
    random.Random(config.seed).shuffle(rows)   # one chat has many turns
    rows = rows[:config.count]
    baseline = Matcher(parts["reward"], config.seed)
    print(f"right on so many of {len(held_out)} held-out pairs: the matcher that learned from the reward "
          f"model's pairs {accuracy(baseline, held_out):.1%}", end="")
    judges = {"matcher": Matcher(parts["judge"], config.seed)}
    judges |= {"second judge": Learned(config)} if config.judge else {}
    print("".join(f"; {who} {accuracy(judge, held_out):.1%}" for who, judge in judges.items()) + "\n")
    replies = {name: answers(config, name, rows, 0) for name in config.models}
    real = {"real replies": ([row.text for row in rows], [True] * len(rows))}
    print(markdown(*table(judges, rows, replies | real)))
    for i, row in enumerate(rows[:config.dialogues]):
        print(f"\n{row.prompt.strip()}", *(f"  {name}: {texts[i]}" for name, (texts, _) in replies.items()),
              sep="\n")


def accuracy(judge, rows):
    """How often the real reply gets more than the one to something else."""
    turns, real, other = ([getattr(row, side) for row in rows] for side in ("prompt", "text", "rejected"))
    return calibration.accuracy(judge(turns, real) - judge(turns, other))


def table(judges, rows, replies):
    """Header and rows: how often a judge prefers a model's reply to the reference's, to the real one, and to
    the same reply to another turn."""
    turns, real = [row.prompt for row in rows], [row.text for row in rows]
    elsewhere, reference = turns[1:] + turns[:1], next(iter(replies))
    header, found = ["model"], {name: [name] for name in replies}
    for who, judge in judges.items():
        header += [f"{who}: above {what}"
                   for what in ("the reference's", "the real reply", "itself after another turn")]
        scores = {name: judge(turns, mine) for name, (mine, _) in replies.items()}
        real_scores = judge(turns, real)
        for name, (mine, _) in replies.items():
            for others in (scores[reference], real_scores, judge(elsewhere, mine)):
                found[name].append(cell(won(scores[name].tolist(), others.tolist()), None))
    for name, (mine, ended) in replies.items():
        found[name] += [f"{distinct(mine, 2):.2f}", f"{mean_words(mine):.1f}", f"{fmean(ended):.0%}"]
    return (*header, "distinct-2", "words", "ended"), list(found.values())


class Learned:
    """A reward model as a judge: called as a Matcher is."""

    def __init__(self, config):
        model, self.tokenizer = checkpoint.load_reward(config.judge)
        self.model = place(model, pick_device(config.device), config.precision)

    def __call__(self, turns, replies):
        rows = [Row("", reply, prompt=turn) for turn, reply in zip(turns, replies)]
        examples = data.encode(rows, self.tokenizer, self.model.lm.config.context)
        return calibration.score_all(self.model, examples)


class Matcher(nn.Module):
    """How well a reply suits a turn: their words' vectors, averaged, made length 1 and multiplied.

    rows   pairs to learn from: the real reply is to be found among all replies of a batch
    """

    def __init__(self, rows, seed=0):
        super().__init__()
        vocabulary = dict.fromkeys(word for row in rows for text in (row.prompt, row.text)
                                   for word in single(text))
        self.ids = {word: i for i, word in enumerate(vocabulary)}
        generator = torch.Generator().manual_seed(seed)
        begin = torch.randn(len(self.ids) + 1, WIDTH, generator=generator) / WIDTH ** 0.5
        # both begin alike: at first the score is how many words turn and reply share
        self.turn, self.reply = (nn.EmbeddingBag.from_pretrained(begin.clone(), freeze=False)
                                 for _ in range(2))
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.fit(rows, generator)

    def fit(self, rows, generator):
        optimizer = torch.optim.Adam(self.parameters(), RATE)
        for _ in range(PASSES):
            for part in torch.randperm(len(rows), generator=generator).split(BATCH):
                turns, replies = ([getattr(rows[i], side) for i in part] for side in ("prompt", "text"))
                scores = self.scale * self.vectors(self.turn, turns) @ self.vectors(self.reply, replies).T
                loss = F.cross_entropy(scores, torch.arange(len(part)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def vectors(self, bag, texts):
        """(N, WIDTH) of length 1."""
        rows = [[self.ids.get(word, len(self.ids)) for word in single(text)] or [len(self.ids)]
                for text in texts]
        starts = torch.tensor([0, *map(len, rows)]).cumsum(0)[:-1]
        return F.normalize(bag(torch.tensor(list(chain(*rows))), starts), dim=1)

    @torch.no_grad()
    def forward(self, turns, replies):
        """Scores (N,) of replies to turns, two lists of N texts."""
        return (self.vectors(self.turn, turns) * self.vectors(self.reply, replies)).sum(1)


def single(text):
    """The words of a text, without the pairs of neighbours."""
    return [word for word in words_of(text) if " " not in word]


if __name__ == "__main__":
    launch(main, Config, __doc__.splitlines()[0])
