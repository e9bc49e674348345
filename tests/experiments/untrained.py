"""Untrained models on disk, for commands that begin with the models of several seeds."""

import torch

from minippo.corpora.toy import toy
from minippo.reward import RewardModel
from minippo.run import checkpoint
from minippo.run.flags import StageConfig
from minippo.tokenizer import Tokenizer
from minippo.transformer import TransformerConfig, build


def models_of_seed_5(folder, gain=1):
    """Write a language model and a reward model of this gain; returns the flags that name them, a dict."""
    tokenizer = Tokenizer.train([row.text for row in toy(400)], 300)
    torch.manual_seed(0)
    lm = build(TransformerConfig(tokenizer.vocab_size, tokenizer.end, width=16, heads=2, layers=1,
                                 context=40)).eval()
    reward = RewardModel(lm)
    reward.gain.fill_(gain)
    for stage, model in (("pretrain", lm), ("reward", reward)):
        checkpoint.save(folder / "5" / stage, stage, model, tokenizer, StageConfig(data="toy"))
    return dict(out=str(folder / "out"), model=f"{folder}/{{seed}}/pretrain",
                reward=f"{folder}/{{seed}}/reward", data="toy", seeds="5", device="cpu", precision="fp32")
