"""Where texts come from: packages that carry some, a toy grammar, or a user's own files."""

import os
from pathlib import Path

from minippo.corpora.chat import chat
from minippo.corpora.own import own
from minippo.corpora.rows import Row
from minippo.corpora.snippets import FILES, snippets
from minippo.corpora.toy import toy
from minippo.corpora.verses import verses


def read(name_or_path: str, cache=None) -> list[Row]:
    """The rows of a corpus, in its own order; no two have the same id.

    name_or_path  "movies", "amazon", "nyt", "chat", "verses", "toy", or a path: .txt, .csv, .tsv, .jsonl,
                  or a folder with pos/ and neg/ (a file that is called like a corpus: ./movies)
    cache         folder for what is downloaded; default $MINIPPO_CACHE, else minippo in
                  $XDG_CACHE_HOME or ~/.cache
    Returns       rows with non-empty texts, stripped unless a prompt comes before them; in a file of
                  your own a text that is repeated is one row with all the votes; ids do not depend on
                  the order; what is read and not used is counted on stderr
    Raises        UserError if there is nothing to read, something in it makes no sense, or rated
                  texts stand beside pairs of chosen and rejected
    """
    name = os.fspath(name_or_path)
    if name in FILES:
        return snippets(name, cache)
    if name in ("chat", "verses"):
        return (chat if name == "chat" else verses)(cache)
    return toy() if name == "toy" else own(Path(name))
