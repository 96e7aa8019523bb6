"""Corruptions of checkpoints and models, each with the check that must find it."""

import random
import shutil
from pathlib import Path
from typing import Any

import torch

from metaopt.operations.validation import DEEP, QUICK, STANDARD
from metaopt.weights.files import read_tensors

from ._corruption import Call, Corruption
from ._edits import (
    Edit,
    Facts,
    Tensors,
    at,
    averaged,
    each_snapshot,
    edited,
    model,
    of_phase_1,
    of_phase_2,
    of_phase_3,
    other_seed,
    policy,
)


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


def leaked_in_checkpoint(name: str, change: Edit | None) -> Corruption:
    """A held-out trajectory of a checkpoint of phase 2 that was recorded again as one of the training."""

    def plant(root: Path, chosen: random.Random) -> Call:
        _, facts = read_tensors(of_phase_2(root), "checkpoint")
        held_out, training = (facts["training"][key][0] for key in ("held_out_names", "training_names"))
        place = root / "trajectories" / training
        shutil.rmtree(place)
        shutil.copytree(root / "trajectories" / held_out, place)
        if change is not None:
            each_snapshot(change)(place, chosen)
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


CORRUPTIONS = [
    edited("checkpoint of phase 1: a tensor removed", QUICK, "skeletons", at(of_phase_1), _lost_part),
    edited("checkpoint of phase 1: a tensor that nothing uses", QUICK, "skeletons", at(of_phase_1), _extra_part),
    edited("checkpoint of phase 2: an average of another shape", QUICK, "skeletons", at(of_phase_2), _thin_average),
    edited(
        "checkpoint of phase 2: an average never made", STANDARD, "checkpoint-state", at(of_phase_2), _never_averaged
    ),
    edited("checkpoint of phase 1: no average", STANDARD, "checkpoint-state", at(averaged), no_average),
    edited("checkpoint of phase 1: another decay", STANDARD, "checkpoint-state", at(averaged), _other_decay),
    edited(
        "checkpoint of phase 1: a step below 0", STANDARD, "checkpoint-state", at(of_phase_1), state_value("step", -1)
    ),
    edited(
        "checkpoint of phase 3: no rollout", STANDARD, "checkpoint-state", at(of_phase_3), state_value("rollout", "x")
    ),
    edited("checkpoint of phase 1: a weight of another shape", DEEP, "reload", at(of_phase_1), thin_weight),
    edited("checkpoint of phase 2: a weight of another shape", DEEP, "reload", at(of_phase_2), thin_weight),
    edited("checkpoint of phase 3: a weight of another shape", DEEP, "reload", at(of_phase_3), thin_weight),
    edited("optimizer: a weight of another shape", DEEP, "reload", at(model), thin_weight),
    edited("policy: a weight of another shape", DEEP, "reload", at(policy), thin_weight),
    edited("checkpoint of phase 2: no list of names", DEEP, "held-out-leakage", at(of_phase_2), _no_list),
    edited("held out: named as training, too", DEEP, "held-out-leakage", at(of_phase_2), _held_out_in_training),
    Corruption("held out: trained on", DEEP, "held-out-leakage", trained_on),
    leaked_in_checkpoint("held out: recorded again for training", None),
    leaked_in_checkpoint("held out: nearly recorded again for training", other_seed),
]
