"""Generative optimizers in one safetensors file each: weights, name, configuration. No code, no pickle."""

import logging
from collections.abc import Mapping
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..core.errors import FileFormatError, MetaoptError, UnknownName
from ..core.registry import load_path
from ..core.rng import isolated
from ..weights.files import kind_of, read_tensors, write_tensors
from . import get_optimizer_model
from .base import GenerativeOptimizer

CHECKPOINT_PREFIX = "averaged/"
"""Where a phase-2 checkpoint keeps the weights that predict (their running average)."""

log = logging.getLogger(__name__)


def optimizer_facts(optimizer: GenerativeOptimizer) -> dict[str, Any]:
    """What is needed to build an equal optimizer: name, configuration, versions of what its tensors depend on."""
    return {
        "name": type(optimizer).__name__,
        "config": optimizer.config.to_mapping(),
        "perceiver_pytorch": version("perceiver-pytorch"),
    }


def save_optimizer(optimizer: GenerativeOptimizer, path: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write an optimizer into one file.

    Args:
        facts: anything else that JSON can hold (what it was trained on, held-out figures).
    Raises:
        StorageError: the file could not be written; what stood there is untouched.
    """
    write_tensors(path, optimizer.state_dict(), "optimizer", {**(facts or {}), "optimizer": optimizer_facts(optimizer)})


def load_optimizer_file(path: Path) -> GenerativeOptimizer:
    """Load an optimizer from its own file or from a phase-2 checkpoint, ready to predict.

    Raises:
        FileFormatError: the file is damaged, or holds something else.
    """
    kind = kind_of(path)
    if kind not in ("optimizer", "checkpoint"):
        raise FileFormatError(f"{path} is a {kind} file; expected an optimizer or a checkpoint of phase 2")
    tensors, facts = read_tensors(path, kind)
    if kind == "checkpoint":
        marked = {name: tensor for name, tensor in tensors.items() if name.startswith(CHECKPOINT_PREFIX)}
        tensors = {name.removeprefix(CHECKPOINT_PREFIX): tensor for name, tensor in marked.items()}
    described = facts.get("optimizer")
    if not isinstance(described, dict):
        raise FileFormatError(f"{path} is a {kind} file without an optimizer; expected a checkpoint of phase 2")
    return _build(path, described, tensors)


def _build(path: Path, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> GenerativeOptimizer:
    written_with = facts.get("perceiver_pytorch")
    if written_with != version("perceiver-pytorch"):
        log.warning(
            "%s was written with perceiver-pytorch %s; %s is installed",
            path,
            written_with,
            version("perceiver-pytorch"),
        )
    try:
        with isolated():  # building draws initial weights; the caller's randomness stays its own
            optimizer = get_optimizer_model(facts["name"], **facts["config"])
        optimizer.load_state_dict(dict(tensors))
    except (KeyError, TypeError, RuntimeError, MetaoptError) as error:
        raise FileFormatError(f"{path} does not hold the optimizer that it describes: {error}") from error
    return optimizer.eval().requires_grad_(False)


BUILTIN: Mapping[str, str] = {"builtin": "optimizer.safetensors", "builtin-fast": "fast.safetensors"}
"""The optimizers that come with this package: a careful one, and a fast one for where data is plenty. Name: file."""

_TRACKED = "metaopt.tracking:load_optimizer"
# The one import that goes up, and only by name: MLflow takes seconds to import, and only these addresses need it.


def load_optimizer(source: str | Path) -> GenerativeOptimizer:
    """Load a trained optimizer as a PyTorch module; no code that comes with it runs.

    Args:
        source: a file, `builtin`, `builtin-fast`, `models:/<name>@<alias>`, `models:/<name>/<version>`, a run ID or a
            `runs:/` URI.
    Raises:
        UnknownName: this installation has no built-in optimizer.
        TrackingError: the tracking server has no such thing.
        FileFormatError: the file is damaged, or holds something else.
    """
    if source in BUILTIN:
        return _load_builtin(BUILTIN[str(source)])
    if isinstance(source, Path) or Path(source).is_file():
        return load_optimizer_file(Path(source))
    return cast(GenerativeOptimizer, load_path(_TRACKED)(source))


def _load_builtin(file: str) -> GenerativeOptimizer:
    place = resources.files("metaopt") / "builtin" / file
    if not place.is_file():
        raise UnknownName(
            "this installation of metaopt has no built-in optimizer. Give a file or models:/<name>@<alias>, or train "
            "one with `metaopt train-optimizer`"
        )
    with resources.as_file(place) as path:
        return load_optimizer_file(path)
