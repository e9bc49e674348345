"""Sampling against transformers' `generate`: model S with batch 64, or GPT-2 small's shape with batch 8.

Random weights, float32, queries of 8 tokens, 48 new ones, temperature 1, no top-k, no top-p; nothing ends
before the last token. First both have to give the same logits and the same likeliest tokens.
"""

from dataclasses import dataclass

import torch

from benchmarks import models
from benchmarks.paired import PairedConfig, agree, compare, peak, say, short
from minippo.generation import generate
from minippo.run.exits import launch
from minippo.run.flags import option

TOLERANCE = 1e-4   # of the largest logit
BATCH = {"s": 64, "gpt2-small": 8, "tiny": 4}


@dataclass
class Config(PairedConfig):
    GROUP = "what is timed"
    shape: str = option("s", "the model", choices=tuple(models.SHAPES))
    batch: int = option(0, "responses; 0: 64 for s, 8 for gpt2-small", low=0)
    query: int = option(8, "tokens of a query", low=1)
    response: int = option(48, "tokens of a response", low=2)
    bf16: bool = option(False, "our matrix products in bfloat16; theirs stay in float32")


def main(config):
    version = models.need("transformers")
    models.check(config)
    shape = models.config(config.shape)
    theirs = models.gpt2(shape, config.seed)
    ours = models.decoder(theirs, shape)
    batch = config.batch or BATCH[config.shape]
    query = models.queries(batch, config.query, shape.vocab_size, config.seed)
    lengths = torch.full((batch,), config.response)

    def sample(**how):
        with models.ends_after(lengths):
            return generate(ours, query, config.response, **how)

    def sample_theirs(**how):
        how = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0} | how
        text = theirs.generate(
            query, attention_mask=torch.ones_like(query), max_new_tokens=config.response,
            pad_token_id=models.END, logits_processor=[models.EndsAfter(lengths, config.query)], **how)
        return text[:, config.query:]

    same = agree(checks(ours, theirs, query, sample(top_k=1), likeliest(sample_theirs)), TOLERANCE)
    ours.bf16 = config.bf16
    result = compare(sample, sample_theirs, config)
    tokens = batch * config.response
    say("generation", config, peer=f"transformers {version}", batch=batch, **result,
        tokens_per_second={name: short(tokens / result[f"{name}_seconds"]["median"])
                           for name in ("ours", "theirs")},
        agreement=same, peak_gflops=short(peak()))


def likeliest(sample_theirs):
    """Their likeliest tokens: do_sample off, and what belongs to it at its neutral values."""
    return sample_theirs(do_sample=False, top_k=None, top_p=None, temperature=None)


@torch.no_grad()
def checks(ours, theirs, query, mine, other):
    """Name -> (ours, theirs): logits of a whole response, and the likeliest responses, (B, R) each."""
    logits = theirs(torch.cat([query, other], dim=1)).logits[:, query.shape[1] - 1:-1]
    return {"logits": (ours(query, other), logits), "likeliest tokens": (mine.float(), other.float())}


if __name__ == "__main__":
    launch(main, Config, __doc__)
