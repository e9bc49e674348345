"""The questions of `minippo label`: two responses of a model to one prompt, which two, and on which side."""

import hashlib

import torch

from minippo import data
from minippo.corpora.read import read
from minippo.corpora.rows import Row
from minippo.generation import generate
from minippo.run import checkpoint
from minippo.run.devices import pick_device, place
from minippo.run.errors import UserError
from minippo.tools.shared import prompts

TRIES = 100               # prompts to look for two different responses to


class Pairs:
    """Questions: what stands at a place depends on the flags and on the answers before it alone."""

    def __init__(self, config):
        self.config, self.device = config, pick_device(config.device)
        if config.reward:
            self.lm, self.reward, self.tokenizer = checkpoint.load_both(config.model, config.reward)
            self.reward.to(self.device)
        else:
            self.lm, self.tokenizer = checkpoint.load_lm(config.model)
        place(self.lm, self.device, config.precision)
        rows = own_prompts(config.prompts) if config.prompts else data.split(read(config.data))["prompts"]
        self.prompts = data.Prompts(rows, self.tokenizer, config.shortest_prompt, config.longest_prompt,
                                    self.lm.config.context - config.response_length)

    def pair(self, place, model):
        """Prompt, left and right text; model: the Taste that chooses if there is no reward model."""
        generator = seeded(self.config.seed, place)
        for _ in range(TRIES):
            query = self.prompts.sample(1, generator, self.device)
            prompt, (texts, scores) = self.tokenizer.decode(query[0]), self.responses(query, model, generator)
            if len(texts) > 1:
                pair = [texts[i] for i in choose(self.config.choose, scores, generator)]
                return prompt, *(pair[::-1] if turned(self.config.seed, place) else pair)
        raise UserError(f"{self.config.model}: {TRIES} prompts without two different responses; raise "
                        "--temperature or --candidates")

    @torch.no_grad()
    def responses(self, query, model, generator):
        """Different texts, none empty (a file of preferences cannot hold that one), and their scores (N,)."""
        count = 2 if self.config.choose == "random" else self.config.candidates
        query = query.expand(count, -1)
        response = generate(self.lm, query, self.config.response_length, self.config.temperature,
                            generator=generator)
        places = {self.tokenizer.decode(row): i for i, row in enumerate(response)}
        places = {text: i for text, i in places.items() if text.strip()}
        if self.config.reward:
            return list(places), self.reward(query, response).cpu()[list(places.values())]
        return list(places), model(list(places))


def own_prompts(path):
    """A Row for each line of a file that is not empty."""
    lines = [text for text, _ in prompts.read(path) if text.strip()]
    if not lines:
        raise UserError(f"--prompts {path}: no prompt in it; write one a line")
    return [Row(str(i), "-", prompt=line) for i, line in enumerate(lines)]


def choose(how, scores, generator):
    """Two places among scores (N,), the first two for random; which of equals is chance."""
    if how == "random":   # the responses are samples: which of them stand first is chance already
        return 0, 1
    order = torch.randperm(len(scores), generator=generator)
    if how == "best":
        first = int(scores[order].argmax())
        second = int(first == 0)
    else:
        gaps = (scores[order][:, None] - scores[order]).abs().fill_diagonal_(torch.inf)
        first, second = divmod(int(gaps.argmin()), len(scores))
    return order[first].item(), order[second].item()


def seeded(*numbers):
    digest = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def turned(seed, place):
    """Whether the pair at a place is shown the other way round: one of every two is, which one is chance."""
    first = int(torch.randint(2, (), generator=seeded(seed, "side", place // 2)))
    return bool(first ^ place % 2)
