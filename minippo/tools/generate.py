"""Write texts with a model of any stage."""

from dataclasses import dataclass

import torch

from minippo.generation import generate
from minippo.run import checkpoint
from minippo.run.devices import pick_device, use_bf16
from minippo.run.errors import UserError
from minippo.run.flags import DeviceConfig, option
from minippo.tokens import pad_left


@dataclass
class Config(DeviceConfig):
    GROUP = "the texts"
    model: str = option("runs/ppo", "folder of any stage")
    prompt: str = option("", "how the text begins")
    n: int = option(5, "number of texts", low=1, high=10_000)
    length: int = option(32, "tokens after the prompt, at most", low=1)
    temperature: float = option(0.8, "below 1: likelier words; above 1: rarer ones", low=0.01)
    top_k: int = option(0, "choose among so many likeliest tokens; 0 = all", low=0)
    top_p: float = option(1.0, "choose among the likeliest tokens of this probability together",
                          low=0.01, high=1)


def main(config):
    """Print `n` texts that begin with the prompt."""
    device = pick_device(config.device)
    lm, tokenizer = checkpoint.load_lm(config.model)
    lm.to(device).bf16 = use_bf16(config.precision, device)
    try:
        prompt = [tokenizer.end] + tokenizer.encode(config.prompt)
    except UnicodeEncodeError as error:
        raise UserError(f"--prompt {config.prompt!a:.40} is not UTF-8 from character {error.start} on; "
                        "write it as UTF-8") from None
    if len(prompt) + config.length > lm.config.context:
        raise UserError(
            f"--prompt has {len(prompt)} tokens and --length asks for {config.length} more; "
            f"the model has a context of {lm.config.context}: shorten one of them")
    query = pad_left([prompt] * config.n).to(device)
    generator = torch.Generator().manual_seed(config.seed)
    for row in generate(lm, query, config.length, config.temperature,
                        config.top_k, config.top_p, generator):
        text = config.prompt + tokenizer.decode(row)
        print("\\n".join(text.splitlines()))   # a line a text
