"""Optional packages: imports whose errors state the command that installs the package."""

import importlib
import os
from typing import Any

from .errors import InvalidConfig


def import_torchvision() -> Any:
    """Import torchvision with its models and data sets.

    Raises:
        InvalidConfig: torchvision is missing, or was built for another version of torch.
    """
    try:
        importlib.import_module("torchvision.models")
        importlib.import_module("torchvision.datasets")
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise InvalidConfig(
            f"torchvision does not work with the installed torch ({error}); expected matching versions from one "
            "package index: pip install --force-reinstall torch torchvision"
        ) from error


def import_transformers() -> Any:
    """Import transformers.

    Raises:
        InvalidConfig: transformers is missing, or incompatible with the other installed packages.
    """
    os.environ.setdefault("USE_HUB_KERNELS", "0")  # some of its networks would download code when they are built
    try:
        return importlib.import_module("transformers")
    except (ImportError, RuntimeError) as error:
        raise InvalidConfig(
            f'the package transformers is missing or broken ({error}): pip install "metaopt[transformers]"'
        ) from error


def import_extra(name: str, extra: str) -> Any:
    """Import a package that an extra of metaopt installs.

    Raises:
        InvalidConfig: the package is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidConfig(f'the package {name} is missing ({error}): pip install "metaopt[{extra}]"') from error
