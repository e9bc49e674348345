"""Models of stages 1 and 3 that answer the same held-out prompts, and what they are measured with."""

import os
import sys
from pathlib import Path

import torch

from minippo import data
from minippo.corpora.read import read
from minippo.policy import ActorCritic
from minippo.run import checkpoint, rows, scoring, stage_3
from minippo.run.devices import pick_device, place
from minippo.run.errors import UserError
from minippo.tools.shared.comparison import judge_of


class Contest:
    """Models by name, the reference among them, and prompts, reward model and judge.

    config      has models (folders), reference, reward, score, data ("" = what the first of stage 3 had),
                prompts (how many), and the flags of a DeviceConfig
    reference   the name of the reference in `models`, {name: ActorCritic}
    reward      the reward model's folder, "" with --score; reward_model: what scores
    settings    a Stage3 of the first model of stage 3, which holds for all; without one its defaults
    judge       a Judge; None if the data has no ratings
    query       (P, Q)
    Raises      UserError for a folder that holds no model of stage 1 or 3, or one of another tokenizer
    """

    def __init__(self, config):
        self.config, self.device = config, pick_device(config.device)
        stages = {name: stage_of(name) for name in config.models}
        if len(set(map(os.path.realpath, stages))) < len(config.models):
            raise UserError("a folder is named twice; name each model once")
        first = next((name for name, stage in stages.items() if stage == "ppo"), None)
        given = checkpoint.read_config(first)["settings"] if first else {}
        self.settings = stage_3.of_stage_3(first, given)
        pretrained = next((name for name, stage in stages.items() if stage == "pretrain"), None)
        reference = config.reference or pretrained or origin(first, given, "model", "--reference")
        same = [name for name in stages if os.path.realpath(name) == os.path.realpath(reference)]
        self.reference = same[0] if same else reference
        stage_of(self.reference)
        self.reward = "" if config.score else config.reward or reward_of(first, given)
        _, score, self.tokenizer = scoring.load_scored(self.reference, self.reward, config.score)
        self.reward_model = self.place(score) if isinstance(score, torch.nn.Module) else score
        self.models = {name: self.load(name) for name in dict.fromkeys([*stages, self.reference])}
        self.ask()

    def load(self, name):
        """The model in a folder; one of stage 1 writes at the temperature of the first of stage 3."""
        if stage_of(name) == "ppo":
            model, tokenizer = checkpoint.load_policy(name)
        else:
            lm, tokenizer = checkpoint.load_lm(name)
            model = ActorCritic(lm, temperature=self.settings.temperature).eval()
        if tokenizer.bpe.to_str() != self.tokenizer.bpe.to_str():
            raise UserError(f"{name} was trained with another tokenizer than {self.reference}; compare "
                            "models that began with the same one of stage 1")
        if model.temperature != self.settings.temperature:
            print(f"note: {name} writes at temperature {model.temperature:g}, models of stage 1 at "
                  f"{self.settings.temperature:g}", file=sys.stderr)
        return self.place(model)

    def place(self, model):
        return place(model, self.device, self.config.precision)

    def ask(self):
        """The prompts, as stage 3 takes them for its own report, and the judge."""
        trained = checkpoint.read_config(self.reference)["settings"]
        self.data = self.config.data or str(trained.get("data", "movies"))
        room = min(model.lm.config.context for model in self.models.values())
        room -= self.settings.response_length
        parts = data.split(read(self.data))
        self.judge = judge_of(parts)
        _, prompts = rows.prompts(parts, self.tokenizer, room, self.settings.shortest_prompt,
                                  self.settings.longest_prompt)
        self.texts = len(prompts.examples)
        self.query = prompts.sample(self.config.prompts, self.generator(0), self.device)

    def generator(self, number):
        """0 draws the prompts, 1 the responses of every model, 2 those of best of n: no model's figures hang
        on which others are named, or in what order."""
        return torch.Generator().manual_seed(self.config.seed + number)


def stage_of(folder):
    """"pretrain" or "ppo"; UserError if the folder holds no model that writes."""
    stage = checkpoint.read_config(folder)["stage"]
    if stage == "reward":
        raise UserError(f"{folder}: holds a reward model, which is no model to compare; name folders of "
                        "stage 1 or 3 (and this one with --reward)")
    return stage


def reward_of(folder, given):
    """The folder of the reward model that a run began with; UserError if there was none, or it is not here.

    The function that scored instead is not imported because a file names it: only a flag does that.
    """
    if function := given.get("score"):
        raise UserError(f"{folder} was scored by {function!r:.80}; give it by --score, or --reward FOLDER")
    return origin(folder, given, "reward", "--reward")


def origin(folder, given, name, flag):
    """The folder of the model or reward model that a run began with; UserError if it is not here."""
    path = given.get(name)
    if not isinstance(path, str) or not os.path.isfile(Path(path) / "config.json"):
        was = f"{folder} began with {path}, which is not here" if folder else "no model of stage 3 says which"
        raise UserError(f"{flag} is needed ({was}); name its folder")
    return path
