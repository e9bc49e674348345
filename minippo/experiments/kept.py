"""Long measurements in parts: a finished part is kept in a file, and read when the command starts again."""

import json
import sys
from dataclasses import asdict, dataclass

from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.run.files import read_regular, write_atomically
from minippo.run.flags import numbers, option

LARGEST = 2**26   # bytes of such a file; one has a hundred times fewer


@dataclass
class SeedsConfig:
    """The flags of a measurement on the models of several seeds. The class that adds to them has `out`."""
    CHOOSES = ()   # flags on which no part depends: they choose parts
    model: str = option("runs/{seed}/pretrain", "folder of the pretrained model; {seed} stands for each seed")
    reward: str = option("runs/{seed}/reward", "folder of the reward model")
    data: str = option("movies", "the data of the three stages; it needs ratings")
    seeds: str = option("0,1,2", "the seeds, with commas between them")
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = option("auto", "precision of the matrix products", choices=("auto", "bf16", "fp32"))


def seeds_of(config):
    """The seeds, numbers; UserError if the models of one are missing: before an hour of work."""
    seeds = numbers(config.seeds, int, 0)
    for seed in seeds:
        checkpoint.load_both(*folders(config, seed))
    return seeds


def folders(config, seed):
    """The folders of the pretrained model and the reward model of a seed."""
    return [name.replace("{seed}", str(seed)) for name in (config.model, config.reward)]


def made(folder):
    """The folder (a Path), made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); name another --out") from None
    return folder


def kept(file, config, seed, part, names, measure):
    """What the file holds of one part of a measurement, a dict; if there is none, what measure() returns.

    config, seed, part   what the figures depend on, beside the files of the models
    names                keys that the dict has
    Raises               UserError if the file is of other flags or models, or damaged
    """
    about = identity(config, seed, part)
    try:
        found = json.loads(read_regular(file, LARGEST).decode())
        same, whole = found["about"] == about, all(name in found for name in names)
    except FileNotFoundError:
        print(f"seed {seed}, {part}: {file}", file=sys.stderr, flush=True)
        found = measure() | {"about": about}
        write_atomically(file, json.dumps(found, indent=1).encode())
        return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        same, whole = True, False
    if not same:
        raise UserError(f"{file}: was made with other flags or models; delete it, or name another --out")
    if not whole:
        raise UserError(f"{file}: cannot be read, or damaged; delete it, and it is made again")
    return found


def identity(config, seed, part):
    """Flags and files of the models, a dict of what JSON keeps."""
    flags = asdict(config)
    for name in ("out", "seeds", "model", "reward", "device", *config.CHOOSES):
        flags.pop(name)
    return flags | {"seed": seed, "part": part,
                    "models": [checkpoint.model_hashes(folder) for folder in folders(config, seed)]}
