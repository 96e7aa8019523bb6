"""Where an optimizer comes from: its source as it does not change, and the parents of what is made with it."""

from pathlib import Path
from typing import cast

from ..core.registry import load_path
from ..trajectories.origin import WEIGHTS, Parent
from ..trajectories.parents import file_parents
from ..weights.files import read_digest
from .files import BUILTIN, KIND, builtin_file

# Imported lazily: importing MLflow takes seconds, and only MLflow sources need it.
_FILE_FROM_MLFLOW = "metaopt.tracking:optimizer_file"
_REGISTERED_PARENT = "metaopt.tracking:registered_parent"


def source_with_parents(source: str) -> tuple[str, tuple[Parent, ...]]:
    """A source for `load_optimizer` that does not change, and the parents of what is made with that optimizer.

    Returns: for an alias the version that has it now, else the source; and a registered version, a checkpoint, or the
        file that comes with metaopt.
    Raises:
        UnknownName, TrackingError, CheckpointError, FileFormatError: as for `load_optimizer`.
    """
    if source in BUILTIN:
        with builtin_file(BUILTIN[source]) as path:
            return source, (Parent(WEIGHTS, source, read_digest(path, KIND)),)
    if Path(source).is_file():
        return source, file_parents(Path(source))
    registered = cast(Parent | None, load_path(_REGISTERED_PARENT)(source))
    if registered is not None:
        return registered.name, (registered,)
    with load_path(_FILE_FROM_MLFLOW)(source) as path:
        return source, file_parents(path)
