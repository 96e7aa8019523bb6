"""Where a trained optimizer can come from: a file, this installation, or a tracking server."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import cast

from ..errors import UnknownName
from ..optimizers.base import GenerativeOptimizer
from ..optimizers.files import load_optimizer_file
from ..registry import load_path

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
