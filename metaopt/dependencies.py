"""Imports of packages that can be installed wrongly, turned into errors that say how to mend it."""

import importlib
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
