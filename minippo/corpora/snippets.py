"""The default data: sentences with real people's ratings, of movie critics, customers, and editors."""

import io
import json
import tarfile

from minippo.corpora.fetch import Package, fetch
from minippo.corpora.rows import Row

ARCHIVE = Package("vaderSentiment==3.3.2", "vaderSentiment-3.3.2.tar.gz",
                  "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9", "the rated snippets")
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {
    "movies": "hutto_ICWSM_2014/movieReviewSnippets_",    # 10,605 of critics, 15 to 29 votes each
    "amazon": "hutto_ICWSM_2014/amazonReviewSnippets_",   # 3,708 of 300 customers' reviews, 20 votes each
    "nyt": "hutto_ICWSM_2014/nytEditorialSnippets_",      # 5,190 of 498 opinion pieces, 20 votes each
}


def snippets(name, cache=None) -> list[Row]:
    """The sentences of a domain, each with the votes (-4 ... 4) of 15 people at least.

    name     a key of FILES; cache, errors: as in `read`
    Returns  rows; those of one review or opinion piece are a group
    Source   Hutto & Gilbert, "VADER", ICWSM 2014; the data is in the package's source archive
    """
    inner, = _members(fetch(ARCHIVE, cache), INNER)
    found = _members(inner, FILES[name] + "GroundTruth.txt", FILES[name] + "anonDataRatings.txt")
    texts, ratings = (data.decode("utf-8-sig").splitlines() for data in found)
    votes = {id: json.loads(values) for id, _, _, values in (line.split("\t") for line in ratings)}
    rows = []
    for id, _, text in (line.split("\t", 2) for line in texts):
        text = " ".join(text.lower().split())  # dashes are blanked out: "comics    even those"
        group = id.rpartition("_")[0]          # 12_3 is the third sentence of the twelfth review
        rows.append(Row(f"{name}-{id}", text, tuple(map(float, votes[id])), group=group))
    return rows


def _members(archive, *names):
    """The bytes of files in a tar, read in memory: nothing is unpacked, no link is followed."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {member.name: member for member in tar if member.isreg()}
        if missing := [name for name in names if name not in members]:
            raise ARCHIVE.missing(f"{ARCHIVE.file} has no file {missing[0]}")
        return [tar.extractfile(members[name]).read() for name in names]
