"""A Hugging Face folder: its JSON, and its tensors in whichever of four forms. Reading it runs no code."""

import json
import os
import zipfile
from pathlib import Path

import torch

from minippo.run.checkpoint import check_archive
from minippo.run.errors import UserError
from minippo.run.files import open_regular, read_regular
from minippo.run.sizes import LARGEST_CONFIG, LARGEST_TENSORS, check_values

FETCH = "name a folder with all files of a model, downloaded before"


def read_json(path, limit=LARGEST_CONFIG):
    """The object in a file of JSON, a dict; UserError if it is missing, damaged or anything else."""
    try:
        found = json.loads(read_regular(path, limit).decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {FETCH}") from None
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from None
    if not isinstance(found, dict):
        raise damaged(path, "no object of JSON")
    return found


def read_tensors(folder):
    """All tensors of a folder by name, from the files that transformers would take.

    Raises   UserError if there are none, if one is missing or damaged, or the package to read them with
    """
    for name, load in (("model.safetensors", load_safetensors), ("pytorch_model.bin", load_pickled)):
        path, index = Path(folder) / name, Path(folder) / f"{name}.index.json"
        if os.path.isfile(path):
            return load(path)
        if os.path.isfile(index):
            return sharded(index, load)
    raise UserError(f"{folder}: neither model.safetensors nor pytorch_model.bin is here; {FETCH}")


def sharded(index, load):
    """The tensors of all files that an index names; each must lie beside it."""
    places = read_json(index, 2**24).get("weight_map")
    files = list(places.values()) if isinstance(places, dict) else [None]
    if not all(isinstance(name, str) and name and Path(name).name == name for name in files):
        raise damaged(index, "its weight_map names no files of this folder")
    found = {}
    for name in sorted(set(files)):
        found |= load(index.parent / name)
    return found


def load_safetensors(path):
    """Tensors by name; UserError without the package, or for what is no such file."""
    try:
        import safetensors.torch
    except ImportError:
        raise UserError(f"{path}: the package safetensors, which reads it, is not here; "
                        "pip install safetensors") from None
    return loaded(path, lambda file: safetensors.torch.load_file(path))


def load_pickled(path):
    """Tensors by name of what torch.save wrote, runs no code of it. UserError for any other file."""
    def load(file):
        if zipfile.is_zipfile(file):   # else as torch wrote before 1.6, as many of 2019 are
            check_archive(file)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)
    return loaded(path, load)


def loaded(path, load):
    """load(open file), checked: tensors by name."""
    try:
        with open_regular(path, LARGEST_TENSORS) as file:
            found = load(file)
        check_values(found)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {FETCH}") from None
    except Exception as error:   # both libraries raise many kinds for what is none of their files
        raise damaged(path, (str(error).splitlines() or [type(error).__name__])[0]) from None
    if not isinstance(found, dict) or not all(
            isinstance(name, str) and isinstance(x, torch.Tensor) for name, x in found.items()):
        raise damaged(path, "no tensors by name")
    return found


def damaged(path, reason):
    return UserError(f"{path}: damaged ({reason!s:.120}); download it again")
