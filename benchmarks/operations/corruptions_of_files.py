"""Corruptions of files of weights of any kind: their bytes, and values that are not finite."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from metaopt.operations.validation import DEEP, QUICK, STANDARD

from ._corruption import Call, Corruption
from ._edits import (
    Damage,
    Edit,
    Facts,
    Tensors,
    any_snapshot,
    at,
    edited,
    model,
    of_phase_1,
    of_phase_2,
    of_phase_3,
    policy,
    subject,
)

FILES: dict[str, Callable[[Path, random.Random], Path]] = {
    "snapshot": any_snapshot,
    "checkpoint of phase 1": lambda root, chosen: of_phase_1(root),
    "checkpoint of phase 2": lambda root, chosen: of_phase_2(root),
    "checkpoint of phase 3": lambda root, chosen: of_phase_3(root),
    "optimizer": lambda root, chosen: model(root),
    "policy": lambda root, chosen: policy(root),
}


def cut(path: Path, chosen: random.Random) -> None:
    """Cut off the end."""
    os.truncate(path, chosen.randrange(0, path.stat().st_size))


def flip(path: Path, start: int, stop: int, chosen: random.Random) -> None:
    """Flip one bit of the bytes from start to stop."""
    raw = bytearray(path.read_bytes())
    raw[chosen.randrange(start, stop)] ^= 1 << chosen.randrange(8)
    path.write_bytes(raw)


def header_end(path: Path) -> int:
    """Where the tensors of a file begin."""
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def flip_header(path: Path, chosen: random.Random) -> None:
    """Flip a bit of the header, or of its length."""
    flip(path, 0, header_end(path), chosen)


def flip_data(path: Path, chosen: random.Random) -> None:
    """Flip a bit of the tensors."""
    flip(path, header_end(path), path.stat().st_size, chosen)


def pickled(path: Path, chosen: random.Random) -> None:
    """Put a pickle in its place."""
    torch.save({"weights": torch.zeros(3)}, path)


def looped(path: Path, chosen: random.Random) -> None:
    """Put a link to itself in its place."""
    path.unlink()
    path.symlink_to(path.name)


def weight(tensors: Tensors, chosen: random.Random) -> Tensor:
    """A weight tensor: floating-point, with more than one number; of a checkpoint of phase 2 an averaged one."""
    averaged = [name for name in tensors if name.startswith(("averaged/", "policy/"))]
    names = averaged or [name for name in tensors if not name.startswith(("base_optimizer/", "average/", "random/"))]
    return tensors[chosen.choice(sorted(name for name in names if _is_weight(name, tensors[name])))]


def _is_weight(name: str, tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 1 and "running_" not in name


def one_value(value: float) -> Edit:
    """Set one number of one weight tensor."""

    def change(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
        flat = weight(tensors, chosen).view(-1)
        flat[chosen.randrange(len(flat))] = value

    return change


def at_each(name: str, level: str, check: str | None, damage: Damage) -> list[Corruption]:
    """A corruption of each kind of file."""

    def plant(kind: str) -> Callable[[Path, random.Random], Call]:
        def planted(root: Path, chosen: random.Random) -> Call:
            path = FILES[kind](root, chosen)
            damage(path, chosen)
            return Call([subject(path)])

        return planted

    return [Corruption(f"{kind}: {name}", level, check, plant(kind)) for kind in FILES]


CORRUPTIONS = [
    *at_each("cut off", QUICK, "file-headers", cut),
    *at_each("a bit of the header flipped", STANDARD, None, flip_header),
    *at_each("a bit of the tensors flipped", STANDARD, "digests", flip_data),
    *at_each("replaced by a pickle", QUICK, "file-headers", pickled),
    *at_each("a link to itself", QUICK, "file-headers", looped),
    *(
        edited(f"{kind}: {value} among the weights", STANDARD, "finite-values", where, one_value(value))
        for kind, where in FILES.items()
        for value in (float("nan"), float("inf"))
        if not (kind == "checkpoint of phase 1" and value == float("inf"))
    ),
    edited("checkpoint of phase 1: inf among the weights", DEEP, "reload", at(of_phase_1), one_value(float("inf"))),
]
