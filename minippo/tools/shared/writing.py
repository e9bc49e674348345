"""Models that write: what `generate` and `chat` share. Texts all at once, or each as it comes."""

from dataclasses import dataclass

import torch

from minippo.generation import filtered, generate, sample
from minippo.run import checkpoint
from minippo.run.devices import pick_device, place
from minippo.run.errors import UserError
from minippo.run.flags import DeviceConfig, option
from minippo.tokens import pad_left, pad_right
from minippo.tools.shared.tables import flat
from minippo.transformer import KVCache

AT_ONCE = 256      # texts sampled together
HALF = "\ufffd"    # what the tokenizer shows for the bytes of a character that is not complete


@dataclass
class WritingConfig(DeviceConfig):
    GROUP = "the texts"
    model: str = option("runs/ppo", "folder of any stage; several with commas between them: side by side")
    reward: str = option("", "folder of a reward model, whose score stands behind each answer")
    length: int = option(32, "tokens after the prompt, at most", low=1)
    temperature: float = option(0.8, "below 1: likelier words; above 1: rarer ones", low=0.01)
    top_k: int = option(0, "choose among so many likeliest tokens; 0 = all, 1 = greedy", low=0)
    top_p: float = option(1.0, "choose among the likeliest tokens of this probability together",
                          low=0.01, high=1)
    after: str = option("", r"text between a prompt and the answer: '\n' for models of --data chat and "
                            "verses, nothing for one that continues")
    stop: tuple = option((), r"text before which an answer is cut off (\n: a new line)")


def writers(config):
    """A Writer for each folder of --model. UserError for a folder that holds none, or is there twice."""
    folders = [name.strip() for name in config.model.split(",") if name.strip()]
    if not folders or len(set(folders)) < len(folders):
        raise UserError(f"--model {config.model!r}: give one folder, or several different ones with commas "
                        "between them")
    reward = checkpoint.load_reward(config.reward) if config.reward else None
    return [Writer(folder, config, reward) for folder in folders]


class Writer:
    """A language model, perhaps with a reward model, at the flags of a WritingConfig.

    name, tokenizer   its folder, its Tokenizer; generator: of its own, the same for every model
    reward            (RewardModel, its Tokenizer), or None
    """

    def __init__(self, folder, config, reward):
        self.name, self.config = folder, config
        self.stops = [typed(text) for text in config.stop if text]
        device = pick_device(config.device)
        self.lm, self.tokenizer = checkpoint.load_lm(folder)
        self.reward, its_tokenizer = reward or (None, self.tokenizer)
        if its_tokenizer.bpe.to_str() != self.tokenizer.bpe.to_str():
            raise UserError(f"{config.reward} was trained with another tokenizer than {folder}; "
                            "name a reward model that was trained from the same model of stage 1")
        for model in filter(None, (self.lm, self.reward)):
            place(model, device, config.precision)
        self.generator = torch.Generator().manual_seed(config.seed)

    def query(self, text, where="--prompt"):
        """The tokens of a prompt, a list; UserError naming where it stands if it does not fit."""
        try:
            tokens = [self.tokenizer.end] + self.tokenizer.encode(text + typed(self.config.after))
        except UnicodeEncodeError as error:
            raise UserError(f"{where} {text!a:.40} is not UTF-8 from character {error.start} on; "
                            "write it as UTF-8") from None
        models = {self.name: self.lm, self.config.reward: self.reward and self.reward.lm}
        for name, lm in models.items():
            if lm and len(tokens) + self.config.length > lm.config.context:
                raise UserError(f"{where} has {len(tokens)} tokens and --length asks for "
                                f"{self.config.length} more; {name} has a context of {lm.config.context}: "
                                "shorten one of them")
        return tokens

    def answers(self, queries):
        """Answers to prompts as `query` gives them: a list of (text, score or None)."""
        found = []
        for i in range(0, len(queries), AT_ONCE):
            query = self.on_device(pad_left(queries[i:i + AT_ONCE]))
            rows = generate(self.lm, query, self.config.length, *self.choice(), self.generator).tolist()
            found += self.finished(query, rows)
        return found

    def pieces(self, query):
        """The answer to one prompt piece by piece, each as soon as it is certain: texts.

        Joined they are the text of `answers`, by the same draws. Returns its score, or None.
        """
        row, shown = [], 0
        query = self.on_device(pad_left([query]))
        for token in one_by_one(self.lm, query, self.config.length, *self.choice(), self.generator):
            row.append(token)
            text = self.tokenizer.decode(row).rstrip(HALF)
            certain = max(shown, len(text) - begun(text, self.stops))
            if cut(text, self.stops) != text:
                break
            yield text[shown:certain]
            shown = certain
        (text, score), = self.finished(query, [row])
        yield text[shown:]
        return score

    @torch.no_grad()
    def finished(self, query, rows):
        """(text, score or None) of each row of tokens. A text that was cut off at a stop ends there for the
        reward model, too."""
        texts = [self.tokenizer.decode(row) for row in rows]
        short = [cut(text, self.stops) for text in texts]
        if not self.reward:
            return [(text, None) for text in short]
        anew = [(self.tokenizer.encode(text) + [self.tokenizer.end])[:self.config.length] for text in short]
        rows = [row if text == whole else cut_off
                for row, cut_off, text, whole in zip(rows, anew, short, texts)]
        return list(zip(short, self.reward(query, self.on_device(pad_right(rows))).tolist()))

    def choice(self):
        return self.config.temperature, self.config.top_k, self.config.top_p

    def on_device(self, tokens):
        return tokens.to(self.lm.embedding.weight.device)


@torch.no_grad()
def one_by_one(lm, query, length, temperature, top_k, top_p, generator):
    """The tokens that `generate` samples for one query (1, Q) by the same draws, as they are drawn: ints."""
    tokens, encoded = lm.context(query)
    cache = KVCache(lm.config, 1, tokens.shape[1] + length, query.device)
    for draw in torch.rand(length, 1, generator=generator).to(query.device):
        states = lm.decode(tokens, encoded, cache)[:, -1]
        logits = filtered(lm.logits(states).float() / temperature, top_k, top_p)
        tokens = sample(logits, draw)[:, None]
        yield tokens.item()
        if tokens.item() == lm.end:
            return


def cut(text, stops):
    """The text up to the first of the stops in it."""
    return text[:min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def begun(text, stops):
    """How many characters at the end of a text may be the beginning of a stop."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)


def typed(text):
    r"""What is meant by a text of the command line: a new line by the two letters \n, a tab by \t."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def scored(score):
    """How a score stands behind an answer; "" for None."""
    return "" if score is None else f" ({score:+.2f})"


def say(writer, query):
    """Print an answer as it comes, its score behind it, and end the line."""
    pieces, score = writer.pieces(query), None
    while True:
        try:
            print(flat(next(pieces)), end="", flush=True)
        except StopIteration as done:
            score = done.value
            break
    print(scored(score), flush=True)
