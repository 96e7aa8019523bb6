"""Changes of files of weights under a right digest, and the files that are changed."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaopt.weights.files import kind_of, read_tensors, write_tensors

from ._corruption import Call, Corruption

Tensors = dict[str, Tensor]
Facts = dict[str, Any]
Edit = Callable[[Tensors, Facts, random.Random], None]
Damage = Callable[[Path, random.Random], None]


def edit(path: Path, change: Edit, chosen: random.Random) -> None:
    """Change the tensors or the facts of a file, and write it with a digest that is right."""
    kind = kind_of(path)
    tensors, facts = read_tensors(path, kind)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors, facts, chosen)
    write_tensors(path, tensors, kind, facts)


def snapshots(folder: Path) -> list[Path]:
    """The snapshots of a trajectory in the order of their steps."""
    return sorted(folder.glob("step_*.safetensors"))


def plain(root: Path, number: int = 0) -> Path:
    """A trajectory of the run `plain`."""
    return sorted((root / "trajectories" / "plain").glob("seed_*"))[number]


def sharded(root: Path) -> Path:
    """The trajectory whose snapshots have shards."""
    return plain(root, 1)


def of_phase_1(root: Path, run: str = "plain") -> Path:
    """A checkpoint of phase 1."""
    return sorted((root / "checkpoints" / run).glob("seed_*/checkpoint.safetensors"))[0]


def of_phase_2(root: Path) -> Path:
    """The checkpoint of phase 2."""
    (path,) = (root / "checkpoints" / "plain").glob("*_epoch_*.safetensors")
    return path


def of_phase_3(root: Path) -> Path:
    """The checkpoint of phase 3."""
    return root / "checkpoints" / "controller" / "rollout_2.safetensors"


def model(root: Path) -> Path:
    """The trained optimizer."""
    return root / "models" / "optimizer.safetensors"


def policy(root: Path) -> Path:
    """The policy."""
    return root / "models" / "policy.safetensors"


def any_snapshot(root: Path, chosen: random.Random) -> Path:
    """A snapshot of any trajectory, without shards, that is neither the first nor the last."""
    paths = sorted((root / "trajectories").glob("*/seed_*/step_*.safetensors"))
    inner = [path for path in paths if path.parent != sharded(root) and path in snapshots(path.parent)[1:-1]]
    return chosen.choice(inner)


def subject(path: Path) -> Path:
    """What is validated if a file is damaged: its folder, if it is a snapshot."""
    return path.parent if path.name.startswith("step_") else path


def edited(name: str, level: str, check: str, where: Callable[[Path, random.Random], Path], change: Edit) -> Corruption:
    """A corruption by a change of tensors or facts under a right digest."""

    def plant(root: Path, chosen: random.Random) -> Call:
        path = where(root, chosen)
        edit(path, change, chosen)
        return Call([subject(path)])

    return Corruption(name, level, check, plant)


def each_snapshot(change: Edit) -> Damage:
    """Make a change in each snapshot of a trajectory."""

    def damage(folder: Path, chosen: random.Random) -> None:
        for path in snapshots(folder):
            edit(path, change, chosen)

    return damage


def other_seed(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    """Hide a copy: another random seed, and weights that differ by little."""
    facts["run"]["seed"] = 777
    for name, *_ in facts["layout"]:
        tensors[name] += 1e-5 * torch.randn_like(tensors[name])


def at(place: Callable[[Path], Path]) -> Callable[[Path, random.Random], Path]:
    """A place that is not chosen at random."""
    return lambda root, chosen: place(root)


def averaged(root: Path) -> Path:
    """The checkpoint of phase 1 with a running average."""
    return of_phase_1(root, "ema")
