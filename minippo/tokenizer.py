"""Text to token ids and back: byte-level BPE, which can write every text and knows no 'unknown'."""

from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from minippo.tokens import PAD

END = "<|endoftext|>"  # GPT-2's only special token: it begins and ends every text
PIECE = 1000           # characters: the time to learn from one word grows with its length squared


class Tokenizer:
    """A trained byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2, Radford et al. 2019).

    vocab_size   number of token ids; end: that of the end token"""

    def __init__(self, bpe):
        self.bpe = bpe
        self.bpe.encode_special_tokens = True  # typed by a user it is text, not the end
        self.vocab_size = bpe.get_vocab_size()
        self.end = bpe.token_to_id(END)
        if self.end is None:
            raise ValueError(f"the tokenizer has no token {END}")
        if sorted(bpe.get_vocab().values()) != list(range(self.vocab_size)):
            raise ValueError("its ids are not 0, 1, 2, ...")

    @classmethod
    def train(cls, texts, vocab_size):
        """Learn up to `vocab_size` tokens (at least 257: the bytes and the end) from texts."""
        if vocab_size < 257:
            raise ValueError(f"a vocabulary of {vocab_size}: 256 bytes and the end token need 257")
        bpe = tokenizers.Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        pieces = (text[i:i + PIECE] for text in texts for i in range(0, len(text), PIECE))
        bpe.train_from_iterator(pieces, trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=[END], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        return cls(bpe)

    def encode(self, text):
        """Token ids of a text, a list without the end token; ValueError if it holds half a character."""
        text.encode()   # the library would panic
        return self.bpe.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        """Text of a list or 1-d tensor of ids, less PAD and end; ValueError for ids not in the vocabulary."""
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        ids = [i for i in ids if i != PAD and i != self.end]
        if strange := [i for i in ids if not 0 <= i < self.vocab_size]:
            raise ValueError(f"token {strange[0]} is outside the vocabulary of {self.vocab_size}")
        return self.bpe.decode(ids)

    def spaced(self):
        """For each token, a list: that of the same letters after a space ("Ġ"), itself if there is none."""
        ids = self.bpe.get_vocab()
        return [ids.get("Ġ" + self.bpe.id_to_token(i).removeprefix("Ġ"), i) for i in range(self.vocab_size)]

    def save(self, folder):
        """Write tokenizer.json, the format of the `tokenizers` library."""
        (Path(folder) / "tokenizer.json").write_text(self.bpe.to_str(), encoding="utf-8")

    @classmethod
    def load(cls, folder):
        """Read what `save` wrote. OSError if it cannot be read, ValueError if it is no such file."""
        text = (Path(folder) / "tokenizer.json").read_text(encoding="utf-8")
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(str(error)) from None
