"""Finds registered versions by number or alias, without loading them."""

import re

from mlflow.exceptions import MlflowException

from ..core.errors import TrackingError
from ..core.text import shown
from .connection import connect
from .store_errors import MISSING, translate_errors

OLD_MODEL_NAME = "metaopt-perceiver"
"""Name of the registered model of metaopt 0.1, for all tasks and networks."""

CHAMPION = "champion"
"""Alias of the version that users load by default."""

_REGISTERED = re.compile(r"models:/([^/@]+)(?:/(\d+)|@(.+))")


def is_registered(source: str) -> bool:
    """Whether a source is a URI of a registered version, by number or alias."""
    return _REGISTERED.fullmatch(source) is not None


def registered_version(source: str) -> tuple[str, int]:
    """The name and the version of a model URI.

    Args:
        source: `models:/<name>/<version>` or `models:/<name>@<alias>`.
    Raises:
        TrackingError: the source is not such a URI, or the version or alias does not exist.
    """
    found = _REGISTERED.fullmatch(source)
    if found is None:
        raise TrackingError(
            f"{shown(source)} is not a registered version; expected models:/<name>/<version> or "
            "models:/<name>@<alias>: register it first, as train-optimizer and train-controller do"
        )
    name, version, alias = found.groups()
    with translate_errors(f"cannot find {source}", "find versions and aliases in `mlflow ui`"):
        client = connect()
        if version is None:
            return name, int(client.get_model_version_by_alias(name, alias).version)
        return name, int(client.get_model_version(name, version).version)


def champion_version(name: str, alias: str = CHAMPION) -> int | None:
    """The version of an alias; None if the alias is not set, or there is no registered model of this name.

    Raises:
        TrackingError: the store cannot be read.
    """
    with translate_errors(f"cannot read the aliases of {name}", "find the name in `mlflow ui`"):
        try:
            version = connect().get_registered_model(name).aliases.get(alias)
        except MlflowException as error:
            if error.error_code != MISSING:
                raise
            return None
    return None if version is None else int(version)
