"""Checkpoints: the complete state of a training in one safetensors file, to resume it bit for bit.

The tensors of a nested state are stored under their paths ("averaged/io.latents", "optimizer/state/0/exp_avg"). The
facts of the file hold the rest of the state as a skeleton. In it scalars and lists are plain JSON. An object with one
key is a reference or a container: `{"tensor": name}`, `{"tuple": [...]}`, or `{"dict": [[key, value], ...]}` with text
or integer keys.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.errors import CheckpointError, FileFormatError
from ..core.text import shown
from ..weights.files import read_tensors, write_tensors
from .ledger_entry import SidecarWriter, TrainingFacts

KIND = "checkpoint"
_SKELETON = "state"


def save_checkpoint(
    path: Path, state: Mapping[str, Any], facts: Mapping[str, Any], about: TrainingFacts | None = None
) -> None:
    """Write the state of a training to one file, atomically.

        from pathlib import Path
        from torch import nn
        from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint

        model = nn.Linear(3, 2)
        save_checkpoint(Path("last.safetensors"), {"model": model.state_dict(), "epoch": 3}, {"task": "digits"})
        state, facts = load_checkpoint(Path("last.safetensors"))
        model.load_state_dict(state["model"])

    Args:
        path: the file, which replaces an older one.
        state: nested dicts (with text or integer keys), lists, tuples, tensors and scalars.
        facts: configuration of the training as JSON values, for `expect_same`; the key "state" is reserved.
        about: what the sidecar states; None writes no sidecar.
    Raises:
        CheckpointError: the state holds an unsupported type; the message names its path.
        StorageError: the disk is full or not writable; an older file is kept.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _disassemble(state, "", tensors)
    sidecar = SidecarWriter(path, about)
    write_tensors(path, tensors, KIND, {**facts, _SKELETON: skeleton}, before_rename=sidecar.before_rename)
    sidecar.after_rename()


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint to the CPU.

    Returns: the state and the facts.
    Raises:
        FileFormatError: the file is missing, damaged, a pickle, or not a checkpoint.
    """
    tensors, facts = read_tensors(path, KIND)
    try:
        state = _assemble(facts.pop(_SKELETON), tensors)
        if tensors or not isinstance(state, dict):
            raise ValueError(f"it does not use the tensors {shown(list(tensors))}")
    except (LookupError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{path} has an invalid description of its state ({shown(error)}); copy it again"
        ) from error
    return state, facts


def expect_same(facts: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    """Check that a checkpoint is of the same architecture and configuration.

    Args:
        facts: facts of the checkpoint.
        expected: facts of this training; further ones are ignored.
        path: the checkpoint, for the message.
    Raises:
        CheckpointError: a field differs; the message has its name and both values.
    """
    difference = _first_difference(facts, json.loads(json.dumps(expected)), "")
    if difference is not None:
        field, found, wanted = difference
        raise CheckpointError(
            f"{path} belongs to another training: its {field} is {shown(found)}, expected {shown(wanted)}. Resume with "
            "the original settings, or start a new training under another run name"
        )


def _disassemble(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The skeleton of a value; its tensors are added to `tensors` under their paths."""
    if isinstance(value, Tensor):
        name = path
        while name in tensors:  # {"a/b": …} beside {"a": {"b": …}}
            name += "'"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = [[_key(key, path), _disassemble(item, _join(path, key), tensors)] for key, item in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        items = [_disassemble(item, _join(path, index), tensors) for index, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(
        f"{path} is a {type(value).__name__}; a checkpoint holds dicts, lists, tuples, tensors, numbers, text and None"
    )


def _assemble(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """The value of a skeleton; takes each tensor out of `tensors`, so that none is copied twice."""
    if isinstance(skeleton, list):
        return [_assemble(item, tensors) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    ((tag, content),) = skeleton.items()
    if tag == "tensor":
        return tensors.pop(content).clone()  # the tensors read are memory-mapped
    if tag == "tuple":
        return tuple(_assemble(item, tensors) for item in content)
    if tag == "dict":
        return {_key(key, "a key"): _assemble(item, tensors) for key, item in content}
    raise ValueError(f"unknown tag {shown(tag)}")


def _key(key: Any, path: str) -> str | int:
    if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
        return key
    raise CheckpointError(f"{path or 'the state'} has the key {shown(key)}; expected text or an integer")


def _join(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)


def _first_difference(found: Any, expected: Any, field: str) -> tuple[str, Any, Any] | None:
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for name, value in expected.items():
            difference = _first_difference(found.get(name), value, f"{field}.{name}" if field else name)
            if difference is not None:
                return difference
        return None
    return None if found == expected else (field, found, expected)
