"""Imports of packages that can be missing or installed wrongly, turned into errors that say how to mend it."""

import importlib
import os
from typing import Any

from .errors import InvalidConfig


def import_torchvision() -> Any:
    """The torchvision package with its models and datasets, imported only where a task or target needs it.

    Raises:
        InvalidConfig: it is missing, or was built for another torch.
    """
    try:
        importlib.import_module("torchvision.models")
        importlib.import_module("torchvision.datasets")
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise InvalidConfig(
            f"torchvision does not work with the installed torch ({error}). The two must be a matching pair from the "
            "same index: pip install --force-reinstall torch torchvision"
        ) from error


def import_transformers() -> Any:
    """The transformers package, an extra of ours, imported only where a target needs it.

    Raises:
        InvalidConfig: it is missing, or does not fit what else is installed.
    """
    os.environ.setdefault("USE_HUB_KERNELS", "0")  # some of its networks would fetch code when they are built
    try:
        return importlib.import_module("transformers")
    except (ImportError, RuntimeError) as error:
        raise InvalidConfig(
            f'the package transformers is missing or broken ({error}): pip install "metaopt[transformers]"'
        ) from error


def import_extra(name: str, extra: str) -> Any:
    """A package that comes with one of our extras, imported only where it is asked for.

    Raises:
        InvalidConfig: it is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidConfig(f'the package {name} is missing ({error}): pip install "metaopt[{extra}]"') from error
