"""Small packages that stand in for the real ones."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace

import pytest

from minippo.corpora.read import read
from minippo.run.errors import UserError


def tar(**members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def wheel(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def like(package, content):
    """The same package, but with this content."""
    return replace(package, sha256=hashlib.sha256(content).hexdigest())


def real(name):
    """The rows of a real corpus; the test is skipped where it can be neither found nor fetched."""
    try:
        return read(name)
    except UserError as error:
        pytest.skip(str(error))
