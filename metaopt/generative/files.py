"""Save and load generative optimizers. A safetensors file stores the class name, the configuration and the weights.

The file contains no code and no pickled objects.
"""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..core.errors import FileFormatError, MetaoptError, UnknownName
from ..core.registry import load_path
from ..core.rng import isolated
from ..weights.building import build_as_listed, check_finite
from ..weights.files import kind_of, read_tensors, write_tensors
from . import get_optimizer_model
from .base import GenerativeOptimizer

CHECKPOINT_PREFIX = "averaged/"
"""Prefix of the names of the EMA weights in a checkpoint of phase 2 (training of a generative optimizer).

Predictions use the EMA weights.
"""

BUILTIN: Mapping[str, str] = {"builtin": "optimizer.safetensors", "builtin-fast": "fast.safetensors"}
"""File of each built-in optimizer. `builtin-fast` extrapolates further; it is for large data sets."""

KIND = "optimizer"
"""Kind of the files of trained optimizers."""

_LOAD_FROM_MLFLOW = "metaopt.tracking:load_optimizer"
# Imported lazily: importing MLflow takes seconds, and only MLflow sources need it.

log = logging.getLogger(__name__)


def load_optimizer(source: str | Path) -> GenerativeOptimizer:
    """Load a trained optimizer as a `torch.nn.Module`. No code from the source is executed.

        import metaopt
        from metaopt.generative.files import save_optimizer
        from pathlib import Path

        optimizer = metaopt.load_optimizer("builtin")
        save_optimizer(optimizer, Path("optimizer.safetensors"))
        optimizer = metaopt.load_optimizer("optimizer.safetensors")

    Args:
        source: a file, `builtin`, `builtin-fast`, or an MLflow source: `models:/<name>@<alias>`,
            `models:/<name>/<version>`, a run ID or a `runs:/` URI.
    Returns: the optimizer in evaluation mode; its parameters do not require gradients.
    Raises:
        UnknownName: this installation has no built-in optimizer.
        TrackingError: the tracking store has no such model or run.
        FileFormatError: the file is damaged or does not contain an optimizer.
    """
    if source in BUILTIN:
        return _load_builtin(BUILTIN[str(source)])
    if isinstance(source, Path) or Path(source).is_file():
        return load_optimizer_file(Path(source))
    return cast(GenerativeOptimizer, load_path(_LOAD_FROM_MLFLOW)(source))


def optimizer_facts(optimizer: GenerativeOptimizer) -> dict[str, Any]:
    """The class name, the configuration and the versions of packages, as stored with the weights."""
    facts = {"name": type(optimizer).__name__, "config": optimizer.config.to_mapping()}
    return facts | {_key(package): version(package) for package in optimizer.packages}


def save_optimizer(optimizer: GenerativeOptimizer, path: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Save an optimizer to one file, which `load_optimizer` can read.

    Args:
        facts: additional JSON-serialisable values to store, such as the training data or held-out results.
    Raises:
        StorageError: the file cannot be written; an existing file is unchanged.
    """
    write_tensors(path, optimizer.state_dict(), KIND, {**(facts or {}), "optimizer": optimizer_facts(optimizer)})


def load_optimizer_file(path: Path) -> GenerativeOptimizer:
    """Load an optimizer from an optimizer file or a checkpoint of phase 2.

    Returns: the optimizer in evaluation mode; its parameters do not require gradients.
    Raises:
        FileFormatError: the file is damaged, or is neither an optimizer file nor a checkpoint of phase 2.
    """
    kind = kind_of(path)
    if kind not in (KIND, "checkpoint"):
        raise FileFormatError(f"{path} is a {kind} file; expected an optimizer or a checkpoint of phase 2")
    tensors, facts = read_tensors(path, kind)
    if kind == "checkpoint":
        averaged = {name: tensor for name, tensor in tensors.items() if name.startswith(CHECKPOINT_PREFIX)}
        tensors = {name.removeprefix(CHECKPOINT_PREFIX): tensor for name, tensor in averaged.items()}
    if "optimizer" not in facts:
        raise FileFormatError(f"{path} describes no optimizer; expected an optimizer or a checkpoint of phase 2")
    return _build(path, facts["optimizer"], tensors)


def _build(path: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> GenerativeOptimizer:
    build = partial(get_optimizer_model, description["name"], **description["config"])
    try:
        check_finite(tensors)
        with isolated():  # random initialisation must not change the caller's random state
            optimizer = build_as_listed(build, tensors)
        optimizer.load_state_dict(dict(tensors))
    except (LookupError, TypeError, RuntimeError, ArithmeticError, MetaoptError) as error:
        raise FileFormatError(f"cannot build the optimizer that {path} describes: {error}") from error
    for package in optimizer.packages:
        written_with, installed = description.get(_key(package)), version(package)
        if written_with != installed:
            log.warning("%s was written with %s %s, but %s is installed", path, package, written_with, installed)
    return optimizer.eval().requires_grad_(False)


def _key(package: str) -> str:
    """The name of the fact that states the version of a package."""
    return package.replace("-", "_")


def _load_builtin(file: str) -> GenerativeOptimizer:
    with builtin_file(file) as path:
        return load_optimizer_file(path)


def builtin_file(file: str) -> AbstractContextManager[Path]:
    """The path of an optimizer that comes with metaopt, while the context is open.

    Raises:
        UnknownName: this installation has none.
    """
    resource = resources.files("metaopt") / "builtin" / file
    if not resource.is_file():
        raise UnknownName(
            "this installation of metaopt has no built-in optimizer. Pass a file or models:/<name>@<alias>, or train "
            "an optimizer with `metaopt train-optimizer`"
        )
    return resources.as_file(resource)
