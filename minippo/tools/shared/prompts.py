"""Prompts from a file, one a line."""

from codecs import BOM_UTF8

from minippo.run.errors import UserError
from minippo.run.files import read_regular

LARGEST = 2**24   # bytes


def read(path, piped=None):
    """The lines of a file, or of the bytes of a pipe: a list of (text, where it stands), empty ones too."""
    try:
        content = read_regular(path, LARGEST) if piped is None else piped
    except OSError as error:
        raise UserError(f"--prompts {path}: cannot be read ({error.strerror}); name a file of prompts, "
                        "one a line") from None
    if not content or len(content) > LARGEST:
        raise UserError(f"--prompts {path}: {'over 16 MB' if content else 'empty'}; give a prompt a line")
    found = []
    for i, line in enumerate(content.removeprefix(BOM_UTF8).removesuffix(b"\n").split(b"\n"), 1):
        where = f"--prompts {path}, line {i}:"
        try:
            found.append((line.removesuffix(b"\r").decode("utf-8"), where))
        except UnicodeDecodeError:
            raise UserError(f"{where} not UTF-8; write it as UTF-8") from None
    return found
