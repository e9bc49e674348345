"""Where texts come from: rated movie snippets, a toy grammar, or a user's own files."""

import os
from pathlib import Path

from minippo.corpora.movies import movies
from minippo.corpora.own import own
from minippo.corpora.rows import Row
from minippo.corpora.toy import toy


def read(name_or_path: str, cache=None) -> list[Row]:
    """The rows of a corpus, in its own order; no two have the same id.

    name_or_path  "movies", "toy", or a path: .txt, .csv, .tsv, .jsonl, or a folder with pos/ and
                  neg/ (a file that is called like a corpus: ./movies)
    cache         folder for what is downloaded; default $MINIPPO_CACHE, else minippo in
                  $XDG_CACHE_HOME or ~/.cache
    Returns       rows with non-empty texts, stripped unless a prompt comes before them; a text
                  that is repeated is one row with all the votes; ids do not depend on the order;
                  what is read and not used is counted on stderr
    Raises        UserError if there is nothing to read, something in it makes no sense, or rated
                  texts stand beside pairs of chosen and rejected
    """
    name = os.fspath(name_or_path)
    if name == "movies":
        return movies(cache)
    return toy() if name == "toy" else own(Path(name))
