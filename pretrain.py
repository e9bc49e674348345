"""Stage 1: a language model from plain text, by maximum likelihood -> runs/pretrain/"""

from dataclasses import dataclass

import torch

from minippo.data import Prompts, batches, encode, random_cut, tensors
from minippo.run import rows, sizes
from minippo.run.exits import launch
from minippo.run.flags import DATA, MODEL, RUN, StageConfig, option
from minippo.run.stage import Run
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD
from minippo.tools.shared import samples
from minippo.training import cross_entropy, linear_decay, step
from minippo.transformer import ARCHITECTURES, TransformerConfig, build


@dataclass
class Config(StageConfig):
    GROUP = "training"
    out: str = option("runs/pretrain", "folder to write the run to", group=RUN)
    architecture: str = option("decoder", "decoder: GPT-2's; seq2seq: an encoder reads the prompt",
                               choices=tuple(ARCHITECTURES), group=MODEL)
    vocab_size: int = option(16384, "tokens of the byte-pair encoding", low=257, high=2**20, group=MODEL)
    width: int = option(192, "size of a hidden state", low=1, group=MODEL)
    heads: int = option(3, "attention heads; width is a multiple of it", low=1, group=MODEL)
    layers: int = option(2, "transformer blocks; on a CPU few learn fastest", low=1, group=MODEL)
    context: int = option(128, "longest query + response in tokens", low=8, group=MODEL)
    dropout: float = option(0.1, "dropout in stages 1 and 2; PPO runs without", low=0, high=0.9, group=MODEL)
    passes: int = option(6, "passes over the training texts", low=1)
    batch_size: int = option(32, "texts per step", low=1)
    lr: float = option(1.2e-3, "peak learning rate; 3e-4 (wide models) to 2e-3", low=0)
    warmup: float = option(0.05, "share of the steps in which the learning rate rises", low=0, high=1)
    weight_decay: float = option(0.1, "weight decay of AdamW", low=0)
    longest_prompt: int = option(8, "most tokens of a text that are given as its query", low=1, group=DATA)
    samples: int = option(5, "texts to write at the end", low=1)

    def __post_init__(self):
        super().__post_init__()
        sizes.check_sizes(vars(self))


def main(config):
    with Run(config, {"loss": "loss/train"}) as run:
        context, room = config.context, config.context - min(24, config.context // 2)   # the rest: samples
        texts = (text for row in run.rows["reward"] + run.rows["judge"]
                 for text in (row.prompt + row.text, row.rejected) if text)
        tokenizer = Tokenizer.train(texts, config.vocab_size)
        parts = rows.fitting(run.rows, tokenizer, reward=context, judge=context, prompts=room, test=room)
        training, held_out = parts["reward"] + parts["judge"], parts["prompts"] + parts["test"]
        shape = config.architecture, config.width, config.heads, config.layers, context, config.dropout
        lm = run.place(build(TransformerConfig(tokenizer.vocab_size, tokenizer.end, *shape)))
        examples = encode(training, tokenizer, context)
        plan = batches(examples, config.batch_size, config.passes, run.generator)
        prompts = Prompts(held_out, tokenizer, 1, config.longest_prompt, room)
        optimizer = torch.optim.AdamW(lm.parameters(), config.lr, betas=(0.9, 0.95),
                                      weight_decay=config.weight_decay, fused=True)
        schedule = linear_decay(optimizer, len(plan), config.warmup)
        nats = run.spread(lambda lm, *texts: cross_entropy(lm, lm.states(*texts), texts[1]), lm)
        iterations = run.iterations(len(plan), model=lm, optimizer=optimizer, schedule=schedule)
        rows.note_long_texts(examples, tokenizer.end, context)
        for iteration in iterations:
            # 1. Texts; as PPO will, give the beginning as the query, and learn the rest.
            cut = random_cut(config.longest_prompt, run.generator)
            query, response = tensors([examples[i] for i in plan[iteration]], cut, run.device)
            # 2. How surprised the model is by each token, and a step to be less so.
            loss = nats(query, response)
            norm = step(lm, optimizer, schedule, loss)
            run.log({"loss/train": loss.item(), "grad_norm": norm}, tokens=int((response != PAD).sum()))
        lm.eval()
        print(samples.held_out_loss(lm, held_out, tokenizer))
        print(*samples.write(lm, prompts, config.samples, context - room, tokenizer, run), sep="\n")
        run.finish("pretrain", lm, tokenizer)


if __name__ == "__main__":
    launch(main, Config, __doc__)
