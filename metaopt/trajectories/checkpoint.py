"""Checkpoints: everything that a training needs to go on, bit for bit, in one safetensors file.

The tensors of a nested state stand in the file under their path ("averaged/io.latents",
"optimizer/state/0/exp_avg"); the rest of the state stands in the file's facts as a skeleton that says where each
tensor belongs. In the skeleton a scalar is itself and a list is a list; an object with one key is anything else:
`{"tensor": name}`, `{"tuple": [...]}`, or `{"dict": [[key, value], ...]}`, which keeps whole-number keys.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.errors import CheckpointError, FileFormatError
from ..weights.files import read_tensors, write_tensors

KIND = "checkpoint"
_SKELETON = "state"


def save_checkpoint(path: Path, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write a training's state into one file, whole or not at all.

    Args:
        path: the file; one that stands there is replaced.
        state: nested dicts (with text or whole numbers as keys), lists, tuples, tensors and plain scalars, such as
            `{"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}`.
        facts: what the state belongs to, as JSON; `expect_same` compares it on resuming. "state" is taken.
    Raises:
        CheckpointError: the state holds something else; the message says where.
        StorageError: the disk is full or not writable; what stood at `path` is untouched.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _take_apart(state, "", tensors)
    write_tensors(path, tensors, KIND, {**facts, _SKELETON: skeleton})


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a state and its facts, as `save_checkpoint` got them, on the CPU.

    Raises:
        FileFormatError: the file is missing, damaged, a pickle, or no checkpoint.
    """
    tensors, facts = read_tensors(path, KIND)
    try:
        state = _put_together(facts.pop(_SKELETON), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} does not hold the state that it describes ({error!r}); get it anew") from error
    return state, facts


def expect_same(facts: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint of another architecture or configuration.

    Args:
        facts: what the checkpoint states.
        expected: what this training is; facts beyond it are not compared.
        path: the checkpoint, for the message.
    Raises:
        CheckpointError: names the first field that differs, what stands there and what was expected.
    """
    difference = _first_difference(facts, json.loads(json.dumps(expected)), "")
    if difference is not None:
        field, found, wanted = difference
        raise CheckpointError(
            f"{path} belongs to another training: its {field} is {found!r:.200}, expected {wanted!r:.200}. Resume with "
            "the settings that it was started with, or start anew under another run name"
        )


def _take_apart(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """The skeleton of a value; its tensors are added to `tensors` under their places."""
    if isinstance(value, Tensor):
        name = place
        while name in tensors:  # {"a/b": …} beside {"a": {"b": …}}
            name += "'"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = [[_key(key, place), _take_apart(item, _join(place, key), tensors)] for key, item in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        items = [_take_apart(item, _join(place, index), tensors) for index, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(
        f"{place} is a {type(value).__name__}; a checkpoint holds dicts, lists, tuples, tensors, numbers, text and None"
    )


def _put_together(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(skeleton, list):
        return [_put_together(item, tensors) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    ((tag, content),) = skeleton.items()
    if tag == "tensor":
        return tensors[content].clone()  # what was read is a view of the file
    if tag == "tuple":
        return tuple(_put_together(item, tensors) for item in content)
    if tag == "dict":
        return {key: _put_together(item, tensors) for key, item in content}
    raise ValueError(f"unknown tag {tag!r}")


def _key(key: Any, place: str) -> str | int:
    if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
        return key
    raise CheckpointError(f"{place or 'the state'} has the key {key!r}; a checkpoint's keys are text or whole numbers")


def _join(place: str, key: Any) -> str:
    return f"{place}/{key}" if place else str(key)


def _first_difference(found: Any, expected: Any, field: str) -> tuple[str, Any, Any] | None:
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for name, value in expected.items():
            difference = _first_difference(found.get(name), value, f"{field}.{name}" if field else name)
            if difference is not None:
                return difference
        return None
    return None if found == expected else (field, found, expected)
