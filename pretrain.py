"""Stage 1: a language model from plain text, by maximum likelihood -> runs/pretrain/"""

import math
import sys
from dataclasses import dataclass

import torch

from minippo import checkpoint, data
from minippo.config import StageConfig, option, run
from minippo.generation import generate
from minippo.metrics import Metrics
from minippo.policy import token_logprobs
from minippo.resume import resumable
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD
from minippo.training import cross_entropy, linear_decay, start, step, use_bf16
from minippo.transformer import ARCHITECTURES, TransformerConfig, build


@dataclass
class Config(StageConfig):
    out: str = option("runs/pretrain", "folder to write")
    architecture: str = option("decoder", "decoder = GPT-2's", choices=tuple(ARCHITECTURES))
    vocab_size: int = option(8192, "tokens of the byte-pair encoding", low=257)
    width: int = option(384, "size of a hidden state", low=1)
    heads: int = option(6, "attention heads", low=1)
    layers: int = option(2, "transformer blocks; on two cores few wide ones learn fastest", low=1)
    context: int = option(128, "longest query + response in tokens", low=8)
    dropout: float = option(0.1, "in stages 1 and 2; PPO runs without", low=0, high=0.9)
    passes: int = option(5, "passes over the training texts", low=1)
    batch_size: int = option(32, "texts per step", low=1)
    lr: float = option(4e-4, "peak learning rate; 3e-4 to 1e-3", low=0)
    warmup: float = option(0.05, "share of steps in which the learning rate rises", low=0, high=1)
    weight_decay: float = option(0.1, "of AdamW", low=0)
    longest_prompt: int = option(8, "tokens of a text that may be given as its query", low=1)
    samples: int = option(5, "texts to write at the end", low=1)


def main(config):
    device, generator, parts, folder = start(config)
    training, held_out = parts["reward"] + parts["judge"], parts["prompts"] + parts["test"]
    texts = (text for row in training for text in (row.prompt + row.text, row.rejected) if text)
    tokenizer = Tokenizer.train(texts, config.vocab_size)
    lm = build(TransformerConfig(
        tokenizer.vocab_size, tokenizer.end, config.architecture, config.width, config.heads,
        config.layers, config.context, config.dropout)).to(device)
    lm.bf16 = use_bf16(config.precision, device)
    examples = data.encode(training, tokenizer, config.context)
    batches = data.batches(examples, config.batch_size, config.passes, generator)
    optimizer = torch.optim.AdamW(lm.parameters(), config.lr, betas=(0.9, 0.95),
                                  weight_decay=config.weight_decay, fused=True)
    schedule = linear_decay(optimizer, len(batches), config.warmup)
    metrics = Metrics(folder, len(batches), {"loss": "loss/train"})
    length = min(24, config.context // 2)   # of the samples
    prompts = data.Prompts(held_out, tokenizer, 1, config.longest_prompt, config.context - length)
    origin = training, held_out, tokenizer.bpe.to_str(), lm, device, lm.bf16
    with resumable(config, folder, len(batches), generator, origin, model=lm, optimizer=optimizer,
                   schedule=schedule, metrics=metrics) as iterations:
        note_long_texts(examples, tokenizer.end, config.context)
        for iteration in iterations:
            cut = data.random_cut(config.longest_prompt, generator)
            batch = [examples[i] for i in batches[iteration]]
            query, response = data.tensors(batch, cut, device)
            loss = cross_entropy(lm, lm.states(query, response), response)
            norm = step(lm, optimizer, schedule, loss)
            stats = {"loss/train": loss.item(), "grad_norm": norm}
            metrics.log(iteration, stats, int((response != PAD).sum()))
    metrics.close()
    lm.eval()
    print(held_out_loss(lm, held_out, tokenizer))
    query = prompts.sample(config.samples, generator, device)
    for given, response in zip(query, generate(lm, query, length, 0.8, generator=generator)):
        print(f"  {tokenizer.decode(given)} |{tokenizer.decode(response)}")
    checkpoint.save(folder, "pretrain", lm, tokenizer, config)


def note_long_texts(examples, end, context):
    """On stderr, how many of the examples had to be cut off: they do not close with the end."""
    if long := sum(response[-1] != end for _, response in examples):
        print(f"note: {long:,} of {len(examples):,} texts do not fit into --context {context} "
              "tokens and are cut off there", file=sys.stderr)


@torch.no_grad()
def held_out_loss(lm, rows, tokenizer):
    """One line: how well the model predicts texts it was not trained on."""
    examples = data.encode(rows, tokenizer, lm.config.context)
    tokens = sum(len(response) for _, response in examples)
    nats = 0.0
    for i in range(0, len(examples), 64):
        query, response = data.tensors(examples[i:i + 64], device=lm.embedding.weight.device)
        nats -= token_logprobs(lm(query, response), response).sum().item()
    texts = [tokenizer.decode(response) for _, response in examples]   # what fits the context
    characters, words = sum(map(len, texts)), sum(len(text.split()) for text in texts)
    return (f"held-out texts: {nats / tokens:.3f} nats per token, {nats / characters:.3f} "
            f"per character, perplexity {math.exp(min(nats / words, 700)):.0f} per word")


if __name__ == "__main__":
    run(main, Config, __doc__)
