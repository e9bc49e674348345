"""Write texts with a model of any stage, or with several side by side."""

import json
import sys
from dataclasses import dataclass

from minippo.run.errors import UserError
from minippo.run.flags import option
from minippo.tools.shared import prompts
from minippo.tools.shared.tables import flat
from minippo.tools.shared.writing import AT_ONCE, WritingConfig, say, scored, writers


@dataclass
class Config(WritingConfig):
    GROUP = "the texts"
    prompt: str = option("", "how the text begins")
    prompts: str = option("", "file with a prompt a line; - : what comes through a pipe")
    n: int = option(5, "number of texts to each prompt", low=1, high=10_000)
    json: bool = option(False, "a line of JSON a text: model, prompt, response, score")
    stream: bool = option(False, "show each text as it comes; so it is with --n 1 on a terminal")


def main(config):
    """Print `n` texts that begin with each prompt: `prompt |answer`, a line a text."""
    if config.stream and config.json:
        raise UserError("--stream shows texts as they come, and --json whole ones; give one of them")
    given, models = read(config), writers(config)
    queries = {writer: [writer.query(*prompt) for prompt in given] for writer in models}
    texts = [text for text, _ in given]
    alone = config.n == len(texts) == len(models) == 1 and sys.stdout.isatty()
    if config.stream or (alone and not config.json):
        for i, prompt in enumerate(texts):
            for writer in models:
                for _ in range(config.n):
                    print(beginning(models, writer, prompt), end="", flush=True)
                    say(writer, queries[writer][i])
        return
    at_once = max(1, AT_ONCE // config.n)   # prompts
    for i in range(0, len(texts), at_once):
        show(config, models, texts[i:i + at_once],
             {writer: writer.answers([query for query in queries[writer][i:i + at_once]
                                      for _ in range(config.n)]) for writer in models})


def show(config, models, texts, answers):
    """Print the answers of all models, {writer: n of each prompt, one after the other}, prompt by prompt."""
    for i, prompt in enumerate(texts):
        for writer in models:
            for text, score in answers[writer][i * config.n:(i + 1) * config.n]:
                if config.json:   # in ASCII: a terminal obeys nothing in it
                    line = {"model": writer.name, "prompt": prompt, "response": text}
                    print(json.dumps(line if score is None else line | {"score": score}))
                else:
                    print(beginning(models, writer, prompt) + flat(text) + scored(score))


def beginning(models, writer, prompt):
    """What stands before an answer: the model's name, if there are several, and the prompt."""
    wide = max(len(model.name) for model in models)
    return (f"{writer.name:<{wide}}  " if len(models) > 1 else "") + (f"{flat(prompt)} |" if prompt else "")


def read(config):
    """The prompts, a list of (text, where it stands); UserError if they cannot be read."""
    if not config.prompts:
        return [(config.prompt, "--prompt")]
    if config.prompt:
        raise UserError("--prompt and --prompts name different ones; give one of them")
    piped = sys.stdin.buffer.read(prompts.LARGEST + 1) if config.prompts == "-" and sys.stdin else b""
    return prompts.read(config.prompts, piped if config.prompts == "-" else None)
