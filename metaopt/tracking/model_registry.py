"""The model registry: registers generative optimizers, promotes versions and loads them without running their code."""

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import Model

from ..core.errors import FileFormatError, TrackingError
from ..core.text import shown
from ..generative.base import GenerativeOptimizer
from ..generative.files import load_optimizer_file, save_optimizer
from ..weights.layout import Layout
from .artifacts import CHECKPOINTS, resolve_checkpoint
from .cards import describe_champion, describe_version, version_card, with_evaluation
from .connection import connect
from .earlier_versions import earlier_version, same_weights
from .lineage import run_link
from .shipping import copy_package, requirements
from .signature import example, metadata, signature
from .store_errors import translate_errors
from .tracker import MlflowTracker
from .versions import CHAMPION, champion_version

CANDIDATE = "candidate"
"""Alias of the newest version."""

_OPTIMIZER = "artifacts/optimizer.safetensors"  # path inside a logged model
_PYFUNC_FILE = Path(__file__).with_name("pyfunc_model.py")
_FROM_A_RUN = re.compile(rf"(runs:/)?[0-9a-f]{{32}}(/{CHECKPOINTS}(/.*)?)?")

log = logging.getLogger(__name__)


def register_optimizer(
    tracker: MlflowTracker,
    optimizer: GenerativeOptimizer,
    layouts: Sequence[Layout],
    *,
    name: str,
    description: str,
    tags: Mapping[str, Any],
    stride: float,
    facts: Mapping[str, Any],
    alias: str | None = CANDIDATE,
) -> int:
    """Log an optimizer as a model of the run and register it as a new version.

    In a job of a queue, a version that an earlier attempt has registered is completed instead.

    Args:
        layouts: layouts of the networks that it predicts by default.
        description: training data and held-out figures, in Markdown, for the version's card.
        stride: default steps between the rows of a history [optimizer steps].
        facts: stored in the file with the weights (training data, held-out figures).
        alias: set to the new version; None sets no alias.
    Returns: the number of the version.
    Raises:
        TrackingError: the store raised an error, or no layout is given.
    """
    if not layouts:
        raise TrackingError("no layout given; expected at least one: pass the layouts of the trained networks")
    tracker.flush()
    with (
        tempfile.TemporaryDirectory() as folder,
        translate_errors(f"cannot register {name}", "check the store and the name"),
    ):
        version = earlier_version(tracker.client, name, partial(_is_same, optimizer))
        if version is None:
            version = _log_model(tracker, Path(folder), optimizer, layouts, name, stride, facts)
        for key, value in tags.items():
            tracker.client.set_model_version_tag(name, str(version), key, str(value))
        run = run_link(tracker.client, tracker.run_id)
        card = version_card(description, optimizer, name, version, stride=stride, run=run)
        describe_version(tracker.client, name, version, card)
    if alias is not None:
        promote_newest(name, version, alias)
    return version


def promote(name: str, version: int, alias: str = CHAMPION) -> None:
    """Set an alias to a version; the page of the registered model shows the card of the champion.

    Raises:
        TrackingError: the version does not exist, or MLflow reserves the alias (`latest`, `v1`).
    """
    remedy = "find versions in `mlflow ui`; an alias is a word such as champion, not `latest` or `v1`"
    with translate_errors(f"cannot set the alias {name}@{alias} to version {version}", remedy):
        client = connect()
        client.get_model_version(name, str(version))
        client.set_registered_model_alias(name, alias, str(version))
        if alias == CHAMPION:
            describe_champion(client, name, version, alias)


def promote_newest(name: str, version: int, alias: str) -> None:
    """Set an alias to a version unless a newer one has it, as when a killed registration is completed late.

    Raises:
        TrackingError: as for `promote`.
    """
    if (champion_version(name, alias) or 0) < version:
        promote(name, version, alias)


def add_evaluation(name: str, version: int, evaluation: str) -> None:
    """Add the result of an evaluation, in one line of Markdown, to the card of a version.

    Raises:
        TrackingError: the version does not exist.
    """
    with translate_errors(f"cannot describe {name} version {version}", "find versions in `mlflow ui`"):
        client = connect()
        found = client.get_model_version(name, str(version))
        describe_version(client, name, version, with_evaluation(found.description or "", evaluation))
        if champion_version(name) == version:
            describe_champion(client, name, version, CHAMPION)


def load_optimizer(source: str | Path) -> GenerativeOptimizer:
    """Load an optimizer as a PyTorch module. Only safetensors and JSON are read; no code of the model runs.

    Args:
        source: a file; `models:/<name>@<alias>` or `models:/<name>/<version>`; a run ID or
            `runs:/<run ID>/checkpoints/…` for a checkpoint of phase 2; or `runs:/<run ID>/<model>`.
    Raises:
        TrackingError: the source does not exist in the store, or is not a model of metaopt.
        CheckpointError: the run has no complete checkpoint.
        FileFormatError: the file is damaged or of another kind.
    """
    with optimizer_file(source) as path:
        return load_optimizer_file(path)


@contextmanager
def optimizer_file(source: str | Path) -> Iterator[Path]:
    """The file of an optimizer. What is in the store is downloaded for the time of the block.

    Args:
        source: as for `load_optimizer`.
    Raises:
        TrackingError, CheckpointError: as for `load_optimizer`.
    """
    address = str(source)
    if isinstance(source, Path) or Path(address).is_file():
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        if _FROM_A_RUN.fullmatch(address):
            yield resolve_checkpoint(address, Path(folder)).path
            return
        if not address.startswith(("models:/", "runs:/")):
            raise TrackingError(
                f"no optimizer at {shown(address)}; expected an existing file, models:/<name>@<alias>, "
                "models:/<name>/<version>, a run ID or runs:/<run ID>/…"
            )
        remedy = "choose a version in `mlflow ui` that metaopt registered"
        with translate_errors(f"cannot load an optimizer from {address}: it has no {_OPTIMIZER}", remedy):
            connect()
            path = mlflow.artifacts.download_artifacts(f"{address.rstrip('/')}/{_OPTIMIZER}", dst_path=folder)
        yield Path(path)


def _log_model(
    tracker: MlflowTracker,
    folder: Path,
    optimizer: GenerativeOptimizer,
    layouts: Sequence[Layout],
    name: str,
    stride: float,
    facts: Mapping[str, Any],
) -> int:
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # else a uv.lock in the working directory is logged
    package = copy_package(folder)
    save_optimizer(optimizer, folder / "optimizer.safetensors", facts)
    unique_layouts = [layout.to_list() for layout in dict.fromkeys(layouts)]
    description = {"package": package.name, "stride": stride, "layouts": unique_layouts}
    (folder / "layouts.json").write_text(json.dumps(description), encoding="utf-8")
    with redirect_stderr(StringIO()):  # MLflow prints a message that is logged below; errors are raised
        info = Model.log(  # mlflow.pyfunc.log_model calls it, but has no parameter for the run
            artifact_path=None,
            name=name,
            flavor=mlflow.pyfunc,
            run_id=tracker.run_id,
            python_model=str(_PYFUNC_FILE),
            code_paths=[str(package)],
            artifacts={"optimizer": str(folder / "optimizer.safetensors"), "layouts": str(folder / "layouts.json")},
            signature=signature(stride),
            input_example=example(layouts, stride),
            metadata=metadata(optimizer, stride),
            pip_requirements=requirements(type(optimizer).__name__),
            registered_model_name=name,
        )
    log.info("registered version %s of %s", info.registered_model_version, name)
    return int(info.registered_model_version)


def _is_same(optimizer: GenerativeOptimizer, uri: str) -> bool:
    """Whether a version is an optimizer of the same class, configuration and weights."""
    try:
        found = load_optimizer(uri)
    except (TrackingError, FileFormatError):
        return False
    same_kind = (type(found), found.config) == (type(optimizer), optimizer.config)
    return same_kind and same_weights(found, optimizer)
