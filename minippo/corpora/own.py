"""A user's own texts: every reader yields (where, record), `_row` judges the record."""

import csv
import io
import json
import math
import os
import sys
from collections import Counter
from dataclasses import replace

from minippo.corpora.rows import Row, fingerprint
from minippo.run.errors import UserError
from minippo.run.files import read_regular
from minippo.run.rows import note

TEXT, RATING = ("text", "review", "sentence", "content", "response"), ("rating", "label", "sentiment")
PAIR = ("chosen", "rejected")
LABELS = {"positive": 1.0, "pos": 1.0, "negative": -1.0, "neg": -1.0}
NAMES = ("id", "group")   # of a row, and of rows that the split keeps together
COLUMNS = {*TEXT, *RATING, *PAIR, *NAMES, "prompt"}
LONGEST_REVIEW, REVIEWS = 1000, 5000  # characters; of each sign
LARGEST_FILE = 2**30   # bytes; what fits is read whole
LARGEST_RATING = 10**9  # squares and sums of ratings stay finite in float32


def own(path):
    """The rows of a file or folder; see `read`."""
    try:
        if not os.path.lexists(path):
            raise UserError(f"{path}: no such file or folder; give a path, or movies, amazon, nyt, chat, "
                            "verses, or toy")
        if not path.is_dir() and not path.is_file():   # a pipe would be waited for
            raise UserError(f"{path}: neither a file nor a folder; give one of them")
        if not path.is_dir() and path.suffix.lower() not in READERS:
            raise UserError(f"{path}: unknown kind of file; use one of {', '.join(READERS)}")
        return _rows(path, (_folder if path.is_dir() else READERS[path.suffix.lower()])(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); fix that, or give another") from error


def _rows(path, records):
    """Rows of all records, a text that is repeated once; what is not used of them is counted on stderr."""
    rows, texts, columns, used, total = {}, {}, set(), set(), 0
    empty, repeated, beside = [], [], []   # where these stand
    for total, (where, given) in enumerate(records, 1):
        record = {str(key).strip().lower(): given[key] for key in given}
        columns |= record.keys()
        if not isinstance(given, _Object):   # of a table: how many found a review helpful, or the like
            record.pop("votes", None)
        if _filled(record, TEXT) and not _filled(record, PAIR):   # a table has all columns in all rows
            record = {key: value for key, value in record.items() if key not in PAIR}
        row, mine = _row(record, str(where))
        used |= mine
        if others := {key for key in record if _filled(record, [key])} - mine:
            beside.append((row.where, others))
        if not row.text or ("rejected" in record and not row.rejected):
            empty.append(row.where)
            continue
        if texts.setdefault(row.id, row.texts) != row.texts:
            raise UserError(f"{where}: id {row.id:.40} was another text's before; "
                            "give each text its own, or rename that column")
        if before := rows.get(row.texts):
            if row.rejected or not row.votes:
                repeated.append(row.where)
            row = replace(before, id=min(before.id, row.id), votes=before.votes + row.votes)
        rows[row.texts] = row
    if not rows:
        raise UserError(f"{path}: empty, or without a usable row; it needs one text at least")
    note(empty, total, "left out, without a text, or with one of chosen and rejected alone")
    note(repeated, total, "left out, each repeats another and adds no rating")
    note([where for where, others in beside if others & used], total,
         "have two texts or two ratings, in columns of which the first is used")
    prompts = Counter(row.prompt for row in rows.values() if row.prompt)
    note([row.where for row in rows.values() if prompts[row.prompt] > 1 and not row.group], len(rows),
         "share a prompt with others, so one held out may be learned from; rows of a group stay together")
    if unused := columns - used - {""}:
        print(f"note: {path}: columns that are not used: {sorted(unused)!s:.200}", file=sys.stderr)
    return _one_kind(path, list(rows.values()))


def _one_kind(path, rows):
    """The rows; UserError if some are rated texts and others pairs: preferences are learned from one kind."""
    kinds = {"rated texts": [row for row in rows if row.votes and not row.rejected],
             "pairs of chosen and rejected": [row for row in rows if row.rejected]}
    if all(kinds.values()):
        (rare, few), (other, many) = sorted(kinds.items(), key=lambda kind: len(kind[1]))
        raise UserError(f"{few[0].where}: the first of {rare} ({len(few):,}) in a file that has {other} "
                        f"({len(many):,}), too; one kind is learned from at a time: put them into two files")
    note([row.where for row in kinds["pairs of chosen and rejected"] if row.votes], len(rows),
         "are pairs with a rating, which is not used: chosen and rejected say who is preferred")
    return rows


def _row(record, where):
    """The row of a record with lower-case keys, and the columns that it is made of."""
    pair = "chosen" in record and "rejected" in record
    there = ["chosen"] if pair else [name for name in TEXT if name in record]
    if not there:
        found, names = ", ".join(record) or "nothing", " or ".join(TEXT)
        semicolons = "; put commas between cells" if ";" in found else ""
        raise UserError(f"{where}: no text; found {found:.200}; needed {names}, or chosen and rejected"
                        f"{semicolons}")
    name = next((name for name in there if _filled(record, [name])), there[0])
    text, prompt = _text(record, name, where), _text(record, "prompt", where)
    text = text.replace("<br />", " ") if name == "review" else text   # as IMDB's have it
    rejected = _text(record, "rejected", where) if pair else ""
    if not (pair or prompt):   # else the space between prompt and response counts
        text = text.strip()
    used = {name, "prompt", *NAMES, *(["rejected"] if pair else [])}
    votes = record.get("votes")
    if votes is None:
        rated = [key for key in RATING if record.get(key) not in (None, "")][:1]
        used |= set(rated or RATING)
        votes = [record[key] for key in rated]
    elif not isinstance(votes, list):
        raise UserError(f"{where}: votes are not a list; write them like [1, 2, -1]")
    else:
        used.add("votes")
    id, group = (_text({key: str(record[key])}, key, where) if record.get(key) is not None else ""
                 for key in NAMES)
    id = id or fingerprint(prompt, text, rejected)
    return Row(id, text, tuple(_number(vote, where) for vote in votes), prompt, rejected, where, group), used


def _filled(record, names):
    """Which of these columns a record has something in: their values."""
    return [record[name] for name in names if record.get(name) is not None and str(record[name]).strip()]


def _text(record, name, where):
    text = "" if record.get(name) is None else record[name]
    # JSON can spell half a character, "\ud800", which no file and no tokenizer can hold
    if not isinstance(text, str) or any("\ud800" <= letter <= "\udfff" for letter in text):
        advice = ("join messages to one text; all but the last are the prompt" if isinstance(text, list)
                  else "put a text in quotes")
        raise UserError(f"{where}: {name} is not a text but {text!a:.40}; {advice}")
    return text if text.strip() else ""


def _number(value, where):
    try:
        word = str(value).strip().lower()
        number = math.nan if "_" in word else float(LABELS.get(word, value))   # 1_000 is Python's
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= LARGEST_RATING:   # NaN, too
        raise UserError(f"{where}: rating {value!r:.40} is no finite number up to "
                        f"{LARGEST_RATING:,}; use one, or pos/neg")
    return number


def _decode(path):
    data = read_regular(path, LARGEST_FILE)
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
        if line.strip():
            yield f"{path} line {number}", {"text": line}


class _Object(dict):
    """A JSON object that knows all its keys: a dict alone keeps the last of two."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.names = [name for name, _ in pairs]


def _jsonl(path):
    for where, line in _txt(path):
        try:
            record = json.loads(line["text"], object_pairs_hook=_Object)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: bad JSON ({error}); write one object a line") from None
        if not isinstance(record, dict):
            raise UserError(f'{where}: not a JSON object; write {{"text": "..."}}')
        _once(record.names, where, COLUMNS | {"votes"})
        yield where, record


def _once(names, where, used=COLUMNS):
    """UserError if two columns have one name, whatever its case, of those that are used."""
    counts = Counter(name.strip().lower() for name in names)
    for name in sorted(used & counts.keys()):
        if counts[name] > 1:
            raise UserError(f"{where}: {counts[name]} columns are called {name}; rename one")


def _table(path):
    # strict: a forgotten quote is an error and does not swallow the lines below it
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    table = csv.DictReader(io.StringIO(_decode(path)), delimiter=delimiter, strict=True)
    try:
        _once(table.fieldnames or (), path)
        for record in table:
            where = f"{path} line {table.reader.line_num}"
            if None in record:
                raise UserError(f"{where}: more cells than the header has; put texts in quotes, "
                                f"and {delimiter!r} between cells")
            if None in record.values():
                raise UserError(f"{where}: fewer cells than the header has; fill it up")
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
        found, long = [], 0
        for file in files:
            review = _decode(file)
            if len(review) > LONGEST_REVIEW:
                long += 1
            else:
                found.append((file, review))
            if len(found) == REVIEWS:
                break
        if long:
            print(f"note: {path}: {long:,} of the first {long + len(found):,} files of {sign}/ "
                  f"left out: more than {LONGEST_REVIEW:,} characters", file=sys.stderr)
        if more := sum(1 for _ in files):
            print(f"note: {path}: {more:,} more files of {sign}/ left out: {REVIEWS:,} are used",
                  file=sys.stderr)
        if not found:
            raise UserError(f"{path}: {sign}/ is empty, or without a usable row; it needs .txt "
                            f"files of at most {LONGEST_REVIEW} characters")
        for file, review in found:
            yield file, {"review": review, "label": sign}


READERS = {".txt": _txt, ".csv": _table, ".tsv": _table, ".jsonl": _jsonl}
