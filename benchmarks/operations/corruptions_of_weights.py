"""Corruptions of trajectories, checkpoints and models, each with the check that must find it."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaopt.operations.validation import DEEP, QUICK, STANDARD
from metaopt.weights.files import kind_of, read_tensors, write_tensors
from metaopt.weights.shards import is_shard

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


FILES: dict[str, Callable[[Path, random.Random], Path]] = {
    "snapshot": any_snapshot,
    "checkpoint of phase 1": lambda root, chosen: of_phase_1(root),
    "checkpoint of phase 2": lambda root, chosen: of_phase_2(root),
    "checkpoint of phase 3": lambda root, chosen: of_phase_3(root),
    "optimizer": lambda root, chosen: model(root),
    "policy": lambda root, chosen: policy(root),
}


def subject(path: Path) -> Path:
    """What is validated if a file is damaged: its folder, if it is a snapshot."""
    return path.parent if path.name.startswith("step_") else path


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


def edited(name: str, level: str, check: str, where: Callable[[Path, random.Random], Path], change: Edit) -> Corruption:
    """A corruption by a change of tensors or facts under a right digest."""

    def plant(root: Path, chosen: random.Random) -> Call:
        path = where(root, chosen)
        edit(path, change, chosen)
        return Call([subject(path)])

    return Corruption(name, level, check, plant)


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


def _each_snapshot(change: Edit) -> Damage:
    def damage(folder: Path, chosen: random.Random) -> None:
        for path in snapshots(folder):
            edit(path, change, chosen)

    return damage


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


def _lost_part(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    del tensors[chosen.choice(sorted(tensors))]


def _extra_part(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    tensors["model/extra"] = torch.zeros(2)


def _thin_average(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    name = chosen.choice(sorted(name for name in tensors if name.startswith("averaged/") and tensors[name].dim() > 1))
    tensors[name] = tensors[name][:, :-1].clone()


def thin_weight(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    """Make a weight and all that belongs to it smaller, so that only the network itself tells."""
    own = [name for name in tensors if tensors[name].dim() > 1 and not name.startswith(("base_optimizer/", "random/"))]
    name = chosen.choice(sorted(own)).removeprefix("model/").removeprefix("averaged/").removeprefix("policy/")
    for other in [other for other in tensors if other.endswith(name)]:
        tensors[other] = tensors[other][:, :-1].clone()


def state_value(key: str, value: Any) -> Edit:
    """Set an entry of the state of a checkpoint."""

    def change(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
        for entry in facts["state"]["dict"]:
            if entry[0] == key:
                entry[1] = value

    return change


def _never_averaged(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    tensors["averaged_count"] = torch.tensor(0)


def no_average(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    """Leave the average of a target out, in the state and among the tensors."""
    state_value("average", {"dict": [["decay", 0.9], ["updates", 0], ["tensors", []]]})(tensors, facts, chosen)
    for name in [name for name in tensors if name.startswith("average/")]:
        del tensors[name]


def _other_decay(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    facts["run"]["averaging"] = 0.5


def _held_out_in_training(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    facts["training"]["training_names"] += facts["training"]["held_out_names"]


def _no_list(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    facts["training"]["training_names"] = 3


def copied(root: Path, change: Edit | None, chosen: random.Random) -> tuple[Path, Path]:
    """A trajectory, and a copy of it under another name, whose snapshots may be changed."""
    source = plain(root)
    copy = root / "trajectories" / "again" / "seed_777"
    shutil.copytree(source, copy)
    if change is not None:
        _each_snapshot(change)(copy, chosen)
    return source, copy


def other_seed(tensors: Tensors, facts: Facts, chosen: random.Random) -> None:
    """Hide a copy: another random seed, and weights that differ by little."""
    facts["run"]["seed"] = 777
    for name, *_ in facts["layout"]:
        tensors[name] += 1e-5 * torch.randn_like(tensors[name])


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


def leaked_in_checkpoint(name: str, change: Edit | None) -> Corruption:
    """A held-out trajectory of a checkpoint of phase 2 that was recorded again as one of the training."""

    def plant(root: Path, chosen: random.Random) -> Call:
        _, facts = read_tensors(of_phase_2(root), "checkpoint")
        held_out, training = (facts["training"][key][0] for key in ("held_out_names", "training_names"))
        place = root / "trajectories" / training
        shutil.rmtree(place)
        shutil.copytree(root / "trajectories" / held_out, place)
        if change is not None:
            _each_snapshot(change)(place, chosen)
        return Call([of_phase_2(root)])

    return Corruption(name, DEEP, "held-out-leakage", plant)


def trained_on(root: Path, chosen: random.Random) -> Call:
    """The held-out trajectory is one of the training, whose name was used again."""
    path = of_phase_2(root)
    _, facts = read_tensors(path, "checkpoint")
    training, held_out = facts["training"]["training_names"], facts["training"]["held_out_names"]
    shutil.rmtree(root / "trajectories" / held_out[0])
    (root / "trajectories" / training[0]).rename(root / "trajectories" / held_out[0])
    return Call([path])


def _in_snapshot(root: Path, chosen: random.Random) -> Path:
    return any_snapshot(root, chosen)


def _at(place: Callable[[Path], Path]) -> Callable[[Path, random.Random], Path]:
    return lambda root, chosen: place(root)


def averaged(root: Path) -> Path:
    """The checkpoint of phase 1 with a running average."""
    return of_phase_1(root, "ema")


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
    edited("checkpoint of phase 1: inf among the weights", DEEP, "reload", _at(of_phase_1), one_value(float("inf"))),
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
    in_folder("trajectory: another network in the facts", DEEP, "measured-losses", _each_snapshot(_wider)),
    repeated("trajectory: a copy under another name", None),
    repeated("trajectory: a nearly equal copy under another name and random seed", other_seed),
    leaked("held out: a copy of a trajectory", None),
    leaked("held out: a nearly equal copy", other_seed),
    leaked("held out: the same random seed", same_seed),
    leaked("held out: the same initial weights", same_start),
    edited("checkpoint of phase 1: a tensor removed", QUICK, "skeletons", _at(of_phase_1), _lost_part),
    edited("checkpoint of phase 1: a tensor that nothing uses", QUICK, "skeletons", _at(of_phase_1), _extra_part),
    edited("checkpoint of phase 2: an average of another shape", QUICK, "skeletons", _at(of_phase_2), _thin_average),
    edited(
        "checkpoint of phase 2: an average never made", STANDARD, "checkpoint-state", _at(of_phase_2), _never_averaged
    ),
    edited("checkpoint of phase 1: no average", STANDARD, "checkpoint-state", _at(averaged), no_average),
    edited("checkpoint of phase 1: another decay", STANDARD, "checkpoint-state", _at(averaged), _other_decay),
    edited(
        "checkpoint of phase 1: a step below 0", STANDARD, "checkpoint-state", _at(of_phase_1), state_value("step", -1)
    ),
    edited(
        "checkpoint of phase 3: no rollout", STANDARD, "checkpoint-state", _at(of_phase_3), state_value("rollout", "x")
    ),
    edited("checkpoint of phase 1: a weight of another shape", DEEP, "reload", _at(of_phase_1), thin_weight),
    edited("checkpoint of phase 2: a weight of another shape", DEEP, "reload", _at(of_phase_2), thin_weight),
    edited("checkpoint of phase 3: a weight of another shape", DEEP, "reload", _at(of_phase_3), thin_weight),
    edited("optimizer: a weight of another shape", DEEP, "reload", _at(model), thin_weight),
    edited("policy: a weight of another shape", DEEP, "reload", _at(policy), thin_weight),
    edited("checkpoint of phase 2: no list of names", DEEP, "held-out-leakage", _at(of_phase_2), _no_list),
    edited("held out: named as training, too", DEEP, "held-out-leakage", _at(of_phase_2), _held_out_in_training),
    Corruption("held out: trained on", DEEP, "held-out-leakage", trained_on),
    leaked_in_checkpoint("held out: recorded again for training", None),
    leaked_in_checkpoint("held out: nearly recorded again for training", other_seed),
]
