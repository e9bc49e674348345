"""Folders of small models with random weights, for tests of what writes and scores."""

import torch

from minippo.reward import RewardModel
from minippo.run import checkpoint
from minippo.run.flags import DeviceConfig
from minippo.transformer import TransformerConfig, build


def put(folder, stage, tokenizer, context=48):
    """Write a model of stage "pretrain" or "reward" into a folder; its name decides the weights."""
    torch.manual_seed(len(folder.name))
    lm = build(TransformerConfig(tokenizer.vocab_size, tokenizer.end, width=8, heads=1, layers=1,
                                 context=context))
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    model = RewardModel(lm) if stage == "reward" else lm
    checkpoint.save(folder, stage, model, tokenizer, DeviceConfig())
