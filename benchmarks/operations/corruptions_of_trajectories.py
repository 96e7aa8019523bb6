"""Corruptions of trajectories, each with the check that must find it."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from metaopt.operations.validation import DEEP, QUICK, STANDARD
from metaopt.weights.files import read_tensors, write_tensors
from metaopt.weights.shards import is_shard

from ._corruption import Call, Corruption
from ._edits import (
    Damage,
    Edit,
    Facts,
    Tensors,
    any_snapshot,
    each_snapshot,
    edit,
    edited,
    other_seed,
    plain,
    sharded,
    snapshots,
)


def in_folder(
    name: str,
    level: str,
    check: str,
    damage: Damage,
    place: Callable[[Path], Path] = plain,
) -> Corruption:
    """A corruption of the folder of a trajectory."""

    def plant(root: Path, chosen: random.Random) -> Call:
        folder = place(root)
        damage(folder, chosen)
        return Call([folder])

    return Corruption(name, level, check, plant)


def _remove_shard(folder: Path, chosen: random.Random) -> None:
    chosen.choice([path for path in sorted(folder.iterdir()) if is_shard(path)]).unlink()


def _exchange_shards(folder: Path, chosen: random.Random) -> None:
    first, second = (sorted(folder.glob(f"shard_*_00001_of_*_{path.name}"))[0] for path in snapshots(folder)[:2])
    shutil.copyfile(second, first)


def _forget_shards(folder: Path, chosen: random.Random) -> None:
    snapshots(folder)[0].unlink()


def _swap_names(folder: Path, chosen: random.Random) -> None:
    first, second = chosen.sample(snapshots(folder), 2)
    kept = first.read_bytes()
    second.replace(first)
    second.write_bytes(kept)


def swap_weights(folder: Path, chosen: random.Random) -> None:
    """Exchange the weights of the first and the last snapshot, which state validation losses."""
    paths = snapshots(folder)
    (one, facts), (other, others) = (read_tensors(path, "snapshot") for path in (paths[0], paths[-1]))
    one, other = ({name: tensor.clone() for name, tensor in each.items()} for each in (one, other))
    write_tensors(paths[0], other, "snapshot", facts)
    write_tensors(paths[-1], one, "snapshot", others)


def other_run(folder: Path, chosen: random.Random) -> None:
    """Copy a snapshot of another run over the own one."""
    path = chosen.choice(snapshots(folder))
    shutil.copyfile(folder.parents[1] / "plain" / plain(folder.parents[2], 2).name / path.name, path)


def other_weights(folder: Path, chosen: random.Random) -> None:
    """Put weights of another run under the facts of the own one, in the middle of the trajectory."""
    path = snapshots(folder)[len(snapshots(folder)) // 2]
    tensors, _ = read_tensors(plain(folder.parents[2], 2) / path.name, "snapshot")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    _, facts = read_tensors(path, "snapshot")
    write_tensors(path, tensors, "snapshot", facts)


def _last_snapshot(change: Edit) -> Damage:
    def damage(folder: Path, chosen: random.Random) -> None:
        edit(snapshots(folder)[-1], change, chosen)

    return damage


def _wider(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    facts["run"]["target_config"]["widths"] = [9]


def _other_loss(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    facts["losses"]["val_loss"] *= chosen.choice([0.5, 0.9, 0.99, 1.01, 1.5])


def _nan_loss(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    facts["losses"]["train_loss"] = chosen.choice([float("nan"), float("inf")])


def noisy(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    """Change all weights by a twentieth of their spread."""
    for name, *_ in facts["layout"]:
        tensors[name] += 0.05 * tensors[name].std() * torch.randn_like(tensors[name])


def _grow_scale(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    for name, *_ in facts["layout"]:
        tensors[name] *= 1e5


def flatter(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    """Give a tensor another shape than the layout says."""
    name = chosen.choice([name for name, *_ in facts["layout"]])
    tensors[name] = tensors[name].reshape(1, -1)


def _as_counts(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    name = chosen.choice([name for name, *_ in facts["layout"]])
    tensors[name] = tensors[name].long()


def _lost_tensor(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    del tensors[chosen.choice([name for name, *_ in facts["layout"]])]


def _other_layout(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    facts["layout"] = facts["layout"][::-1]


def _early_epoch(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    facts["epoch"] = 0


def _task_value(folder: Path, chosen: random.Random) -> None:
    path = folder / "task.json"
    value = json.loads(path.read_text("utf-8"))
    value["last_step"] = 1
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def _cut_task(folder: Path, chosen: random.Random) -> None:
    path = folder / "task.json"
    os.truncate(path, chosen.randrange(1, path.stat().st_size - 2))


def _nothing_left(folder: Path, chosen: random.Random) -> None:
    for path in snapshots(folder):
        path.unlink()


def copied(root: Path, change: Edit | None, chosen: random.Random) -> tuple[Path, Path]:
    """A trajectory, and a copy of it under another name, whose snapshots may be changed."""
    source = plain(root)
    copy = root / "trajectories" / "again" / "seed_777"
    shutil.copytree(source, copy)
    if change is not None:
        each_snapshot(change)(copy, chosen)
    return source, copy


def same_seed(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    """Another training of the same random seed: other weights after the first."""
    facts["run"]["lr"] = 0.5
    for name, *_ in facts["layout"]:
        tensors[name] += torch.randn_like(tensors[name])


def same_start(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    """Another random seed that starts from the same weights."""
    facts["run"]["seed"] = 777
    for name, *_ in facts["layout"] if facts["step"] else []:
        tensors[name] += torch.randn_like(tensors[name])


def repeated(name: str, change: Edit | None) -> Corruption:
    """A trajectory that is there twice."""

    def plant(root: Path, chosen: random.Random) -> Call:
        return Call([*copied(root, change, chosen)])

    return Corruption(name, DEEP, "repeated-recordings", plant)


def leaked(name: str, change: Edit | None) -> Corruption:
    """A held-out trajectory that has something in common with one of the training."""

    def plant(root: Path, chosen: random.Random) -> Call:
        source, copy = copied(root, change, chosen)
        return Call([source], [copy])

    return Corruption(name, DEEP, "held-out-leakage", plant)


def _in_snapshot(root: Path, chosen: random.Random) -> Path:
    return any_snapshot(root, chosen)


CORRUPTIONS = [
    in_folder("trajectory: a shard removed", QUICK, "file-headers", _remove_shard, sharded),
    in_folder("trajectory: a shard of another snapshot", QUICK, "file-headers", _exchange_shards, sharded),
    in_folder("trajectory: shards without their snapshot", QUICK, "file-names", _forget_shards, sharded),
    in_folder("trajectory: all snapshots removed", QUICK, "file-headers", _nothing_left),
    in_folder("trajectory: two snapshots swapped", QUICK, "file-names", _swap_names),
    in_folder("trajectory: task.json cut off", QUICK, "file-names", _cut_task),
    edited("trajectory: a tensor of another shape", QUICK, "layout-shapes", _in_snapshot, flatter),
    edited("trajectory: weights that are whole numbers", QUICK, "layout-shapes", _in_snapshot, _as_counts),
    edited("trajectory: a tensor removed", QUICK, "layout-shapes", _in_snapshot, _lost_tensor),
    in_folder("trajectory: task.json changed", STANDARD, "snapshot-order", _task_value),
    in_folder(
        "trajectory: a snapshot removed",
        STANDARD,
        "snapshot-order",
        lambda folder, chosen: chosen.choice(snapshots(folder)[1:-1]).unlink(),
    ),
    in_folder(
        "trajectory: the last snapshot removed",
        STANDARD,
        "snapshot-order",
        lambda folder, chosen: snapshots(folder)[-1].unlink(),
    ),
    in_folder("trajectory: a snapshot of another run", STANDARD, "snapshot-order", other_run),
    in_folder("trajectory: another layout in a segment", STANDARD, "snapshot-order", _last_snapshot(_other_layout)),
    in_folder("trajectory: an epoch that falls", STANDARD, "snapshot-order", _last_snapshot(_early_epoch)),
    edited("trajectory: a loss that is not finite", STANDARD, "finite-values", _in_snapshot, _nan_loss),
    in_folder("trajectory: weights of another run", STANDARD, "snapshot-path", other_weights),
    in_folder("trajectory: weights 100,000 times too large", STANDARD, "snapshot-path", _last_snapshot(_grow_scale)),
    in_folder("trajectory: the weights of two snapshots swapped", DEEP, "measured-losses", swap_weights),
    in_folder("trajectory: another validation loss", DEEP, "measured-losses", _last_snapshot(_other_loss)),
    in_folder("trajectory: noise in the last weights", DEEP, "measured-losses", _last_snapshot(noisy)),
    in_folder("trajectory: another network in the facts", DEEP, "measured-losses", each_snapshot(_wider)),
    repeated("trajectory: a copy under another name", None),
    repeated("trajectory: a nearly equal copy under another name and random seed", other_seed),
    leaked("held out: a copy of a trajectory", None),
    leaked("held out: a nearly equal copy", other_seed),
    leaked("held out: the same random seed", same_seed),
    leaked("held out: the same initial weights", same_start),
]
