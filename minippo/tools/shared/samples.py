"""What a language model has learned: its loss on held-out texts, and texts of its own."""

import math

import torch

from minippo import data
from minippo.generation import generate
from minippo.tokens import PAD
from minippo.tools.shared.tables import flat
from minippo.training import cross_entropy


@torch.no_grad()
def held_out_loss(lm, rows, tokenizer):
    """One line: how well the model predicts texts it was not trained on."""
    examples = data.encode(rows, tokenizer, lm.config.context)
    tokens = sum(len(response) for _, response in examples)
    nats = 0.0
    for i in range(0, len(examples), 64):
        query, response = data.tensors(examples[i:i + 64], device=lm.embedding.weight.device)
        real = (response != PAD).sum().item()
        nats += real * cross_entropy(lm, lm.states(query, response), response).item()
    texts = [tokenizer.decode(response) for _, response in examples]   # what fits the context
    characters, words = sum(map(len, texts)), sum(len(text.split()) for text in texts)
    return (f"held-out texts: {nats / tokens:.3f} nats per token, {nats / characters:.3f} "
            f"per character, perplexity {math.exp(min(nats / words, 700)):.0f} per word")


def write(lm, prompts, count, length, tokenizer, run):
    """`count` lines, each with a prompt and what the model goes on with."""
    query = prompts.sample(count, run.generator, run.device)
    responses = generate(lm, query, length, 0.8, generator=run.generator)
    return ["  " + flat(tokenizer.decode(given).rstrip("\n")) + f" |{flat(tokenizer.decode(response))}"
            for given, response in zip(query, responses)]
