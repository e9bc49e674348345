"""Say which of two responses you prefer; what you say is data for train_reward.py."""

import os
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial

from minippo.run.errors import UserError
from minippo.run.flags import DeviceConfig, option
from minippo.run.sizes import check_prompts
from minippo.tools.labels import labellers, taste
from minippo.tools.labels.answers import SAID, Answer, Answers
from minippo.tools.labels.pairs import Pairs
from minippo.tools.shared.tables import flat

try:
    import termios
    import tty
except ImportError:   # Windows: a letter and Enter
    termios = None

KEYS = {"l": "left", "r": "right", "t": "tie", "s": "skip", "u": "undo", "q": "quit"}
KEPT_OUT = "out", "count", "every", "device", "precision"   # of the journal: one may go on with others
ARROWS = {"\x1b[D": "l", "\x1b[C": "r", "\x1bOD": "l", "\x1bOC": "r", "\x04": "q"}   # and Ctrl-D
HELP = "  ".join(f"{key} {does}" for key, does in KEYS.items())


@dataclass
class Config(DeviceConfig):
    GROUP = "the pairs"
    model: str = option("runs/pretrain", "folder of the model that writes the responses")
    out: str = option("labels.jsonl",
                      "file for the preferences; beside it stands the journal, NAME.answers.jsonl")
    data: str = option("movies", "its held-out texts give their beginnings as prompts")
    prompts: str = option("", "file with a prompt a line, in their place")
    count: int = option(200, "answers to stop at; ties count, skips do not", low=1)
    choose: str = option("random", "which two of the candidates are shown; uncertain: those between which a "
                         "bag of words is most unsure; best: the one it thinks you like best, and any other",
                         choices=("random", "uncertain", "best"))
    candidates: int = option(16, "responses to a prompt, unless two are taken at random", low=2, high=4096)
    reward: str = option("", "folder of a reward model that chooses, in place of a bag of words")
    labeller: str = option("", "who answers in your place: shorter, actors, questions, noisy, or "
                           "module:function of two texts, 1 = the first, -1 = the second, 0 = a tie")
    every: int = option(20, "answers from one report to the next", low=1)
    response_length: int = option(24, "tokens a response may have", low=1)
    temperature: float = option(0.8, "temperature of the responses: stage 3's", low=0.01)
    shortest_prompt: int = option(2, "fewest tokens of a held-out text given as prompt", low=1)
    longest_prompt: int = option(8, "most tokens of a held-out text given as prompt", low=1)

    def __post_init__(self):
        check_prompts(self)
        if self.reward and self.choose == "random":
            raise UserError("--reward chooses pairs; give --choose uncertain or --choose best with it")


def main(config):
    """Ask until there are `count` answers; all that was said is on the disk before the next question."""
    rule = labellers.labeller(config.labeller) if config.labeller else None
    pairs = Pairs(config)
    decides = {name: value for name, value in asdict(config).items() if name not in KEPT_OUT}
    with closing(Answers(config.out, decides)) as answers:
        keys = None if rule else Keys()
        ask = keys.ask if keys else partial(labellers.said, rule)
        while answered(answers.given) < config.count:
            place = len(answers.given)
            model = taste.Taste(answers.given)
            prompt, left, right = pairs.pair(place, model)
            if keys:
                keys.forget()
                show(place, prompt, left, right)
            said = ask(left, right)
            if said == "quit":
                break
            if said == "undo":
                print("taken back" if answers.undo() else "there is nothing to take back")
                continue
            answers.add(Answer(prompt, left, right, said, model.guess(left, right)))
            so_far = answered(answers.given)
            if said != "skip" and so_far % config.every == 0 and so_far < config.count:
                print(report(answers.given), flush=True)
        print(f"{report(answers.given)}\n" + (f"written: {answers.out}" if answers.out.exists() else
                                              "nothing is written yet: no answer was given"))


def answered(given):
    return sum(answer.answer != "skip" for answer in given)


def show(place, prompt, left, right):
    prompt, left, right = (flat(text.strip()) for text in (prompt, left, right))
    print(f"\n{place + 1}. {prompt} ...\n  [l] {left}\n  [r] {right}")


def report(given):
    """A line: how many answers of each kind, and how well a bag of words saw the preferences coming."""
    counts = [f"{sum(answer.answer == said for answer in given)} {said}" for said in SAID]
    line = f"{answered(given)} answers: {', '.join(counts)}"
    if right := taste.right(given):
        last = right[-50:]
        line += (f"; a bag of words foresaw {sum(right) / len(right):.0%} of the preferences, "
                 f"{sum(last) / len(last):.0%} of the last {len(last)}")
    return line


class Keys:
    """What a person types: a key on a terminal, else a letter and Enter; the end of input quits."""

    def __init__(self):
        self.typed = ""   # and not looked at
        self.terminal = termios and sys.stdin and sys.stdin.isatty()
        if hasattr(sys.stdin, "reconfigure"):   # a key of another encoding is no answer, and no error
            sys.stdin.reconfigure(errors="replace")

    def forget(self):
        """Throw away what was typed on a terminal: it answers no pair that is shown later. A pipe stays."""
        if self.terminal:
            self.typed = ""
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)

    def ask(self, left, right):
        """What was typed, a word of KEYS: asks until it is one."""
        while True:
            print(f"{HELP} > ", end="", flush=True)
            key = self.key()
            if key is None or key in KEYS:
                print(KEYS[key or "q"], flush=True)
                return KEYS[key or "q"]

    def key(self):
        """A letter, "" for none, None at the end of the input."""
        if not self.terminal:
            line = sys.stdin.readline() if sys.stdin else ""
            return line.strip()[:1].lower() if line else None
        if not self.typed:
            self.typed = pressed(sys.stdin.fileno())
        other = self.typed if self.typed.startswith("\x1b") else self.typed[:1]   # F3 ends in R, Alt-l in l
        code = next(filter(self.typed.startswith, ARROWS), other)
        self.typed = self.typed[len(code):]
        return ARROWS.get(code, code.lower()) or None


def pressed(terminal):
    """What is typed next, without waiting for Enter; the terminal is as before afterwards."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal, termios.TCSADRAIN)   # what is typed already is kept
        return os.read(terminal, 64).decode("utf-8", "replace")
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
