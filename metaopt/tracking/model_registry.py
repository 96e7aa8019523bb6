"""Generative optimizers as versions of a registered model: described, tagged, loadable without running their code."""

import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import Model

from ..core.errors import TrackingError
from ..generative.base import GenerativeOptimizer
from ..generative.files import load_optimizer_file, save_optimizer
from ..weights.layout import Layout
from .artifacts import CHECKPOINTS, resolve_checkpoint
from .cards import show_champion, show_version, version_card, with_judgement
from .connection import connect, refusals
from .lineage import run_link
from .runs import MlflowTracker
from .shipping import copy_package, requirements
from .signature import example, metadata, signature

MODEL_NAME = "metaopt-perceiver"
"""The registered model that each result becomes a version of, unless a run names another."""

CHAMPION = "champion"
"""Alias of the version that users load unless they ask for another."""

_OPTIMIZER = "artifacts/optimizer.safetensors"  # where MLflow puts it inside a model
_DOOR = Path(__file__).with_name("pyfunc_model.py")
_REGISTERED = re.compile(r"models:/([^/@]+)(?:/(\d+)|@(.+))")
_FROM_A_RUN = re.compile(rf"(runs:/)?[0-9a-f]{{32}}(/{CHECKPOINTS}(/.*)?)?")

log = logging.getLogger(__name__)


def register_optimizer(
    tracker: MlflowTracker,
    optimizer: GenerativeOptimizer,
    layouts: Sequence[Layout],
    *,
    name: str = MODEL_NAME,
    description: str,
    tags: Mapping[str, Any],
    stride: float,
    facts: Mapping[str, Any],
    alias: str | None = CHAMPION,
) -> int:
    """Log an optimizer as a model of the run and register it as a new version.

    Args:
        layouts: the networks that it may be asked about without stating their layout.
        description: what it was trained on and how it did there, in Markdown; the version's card has more.
        stride: steps between the rows of a history unless a caller says otherwise [optimizer steps].
        facts: kept in the file with the weights (what it was trained on, held-out figures).
        alias: name that points to the new version from now on; None for no such name.
    Returns: the version's number.
    Raises:
        TrackingError: the store refused, or there is no layout.
    """
    if not layouts:
        raise TrackingError("no layout to register with; expected at least one: pass those of the trained networks")
    tracker.flush()
    with tempfile.TemporaryDirectory() as folder, refusals(f"cannot register {name}", "check the store and the name"):
        version = _log_model(tracker, Path(folder), optimizer, layouts, name, stride, facts)
        for key, value in tags.items():
            tracker.client.set_model_version_tag(name, version, key, str(value))
        run = run_link(tracker.client, tracker.run_id)
        card = version_card(description, optimizer, name, int(version), stride=stride, run=run)
        show_version(tracker.client, name, int(version), card)
    if alias is not None:
        promote(name, int(version), alias)
    return int(version)


def promote(name: str, version: int, alias: str = CHAMPION) -> None:
    """Let an alias point to a version, and the registered model's page show that version's card.

    Raises:
        TrackingError: no such version, or an alias that MLflow keeps for itself (`latest`, `v1`).
    """
    way_out = "look up versions in `mlflow ui`; an alias is a word such as champion, not `latest` or `v1`"
    with refusals(f"cannot let {name}@{alias} point to version {version}", way_out):
        client = connect()
        client.get_model_version(name, str(version))
        client.set_registered_model_alias(name, alias, str(version))
        if alias == CHAMPION:
            show_champion(client, name, version, alias)


def add_judgement(name: str, version: int, judgement: str) -> None:
    """Add a line of Markdown about an evaluation to a version's card.

    Raises:
        TrackingError: no such version.
    """
    with refusals(f"cannot describe {name} version {version}", "look versions up in `mlflow ui`"):
        client = connect()
        found = client.get_model_version(name, str(version))
        show_version(client, name, version, with_judgement(found.description or "", judgement))
        if champion_version(name) == version:
            show_champion(client, name, version, CHAMPION)


def is_registered(source: str) -> bool:
    """Whether an address is one of a registered version, by number or alias."""
    return _REGISTERED.fullmatch(source) is not None


def registered_version(source: str) -> tuple[str, int]:
    """The registered model's name and the version that an address stands for.

    Args:
        source: `models:/<name>/<version>` or `models:/<name>@<alias>`.
    Raises:
        TrackingError: it is no such address, or the registry has no such version or alias.
    """
    found = _REGISTERED.fullmatch(source)
    if found is None:
        raise TrackingError(
            f"{source!r} is no registered version; expected models:/<name>/<version> or models:/<name>@<alias>. "
            "Register it first: train-optimizer does so for what it trains"
        )
    name, version, alias = found.groups()
    with refusals(f"cannot find {source}", "look up versions and aliases in `mlflow ui`"):
        client = connect()
        if version is None:
            return name, int(client.get_model_version_by_alias(name, alias).version)
        return name, int(client.get_model_version(name, version).version)


def champion_version(name: str, alias: str = CHAMPION) -> int | None:
    """The version that an alias points to; None where nothing has the alias yet.

    Raises:
        TrackingError: no such registered model.
    """
    with refusals(f"cannot read the aliases of {name}", "look the name up in `mlflow ui`"):
        version = connect().get_registered_model(name).aliases.get(alias)
    return None if version is None else int(version)


def load_optimizer(source: str | Path) -> GenerativeOptimizer:
    """Load an optimizer as a PyTorch module, running no code that comes with it: only safetensors and JSON are read.

    Args:
        source: a file; `models:/<name>@<alias>`, `models:/<name>/<version>`; a run ID or `runs:/<run ID>/checkpoints/…`
            for a checkpoint of phase 2; or `runs:/<run ID>/<model>`.
    Raises:
        TrackingError: the store has no such thing, or it is not a model of ours.
        CheckpointError: the run has no finished checkpoint.
        FileFormatError: the file is damaged, or holds something else.
    """
    address = str(source)
    if isinstance(source, Path) or Path(address).is_file():
        return load_optimizer_file(Path(source))
    with tempfile.TemporaryDirectory() as folder:
        if _FROM_A_RUN.fullmatch(address):
            return load_optimizer_file(resolve_checkpoint(address, Path(folder)).path)
        if not address.startswith(("models:/", "runs:/")):
            raise TrackingError(
                f"no optimizer at {address!r}; expected an existing file, models:/<name>@<alias>, "
                "models:/<name>/<version>, a run ID or runs:/<run ID>/…"
            )
        way_out = "look the model up in `mlflow ui` and name a version that metaopt registered"
        with refusals(f"cannot load an optimizer from {address}: no {_OPTIMIZER} there", way_out):
            connect()
            path = mlflow.artifacts.download_artifacts(f"{address.rstrip('/')}/{_OPTIMIZER}", dst_path=folder)
        return load_optimizer_file(Path(path))


def _log_model(
    tracker: MlflowTracker,
    folder: Path,
    optimizer: GenerativeOptimizer,
    layouts: Sequence[Layout],
    name: str,
    stride: float,
    facts: Mapping[str, Any],
) -> str:
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # else a uv.lock in the working directory travels along
    package = copy_package(folder)
    save_optimizer(optimizer, folder / "optimizer.safetensors", facts)
    different = [layout.to_list() for layout in dict.fromkeys(layouts)]
    described = {"package": package.name, "stride": stride, "layouts": different}
    (folder / "layouts.json").write_text(json.dumps(described), encoding="utf-8")
    with redirect_stderr(StringIO()):  # MLflow prints there what is logged below; it raises what goes wrong
        info = Model.log(  # what mlflow.pyfunc.log_model calls, which cannot be told the run
            artifact_path=None,
            name=name,
            flavor=mlflow.pyfunc,
            run_id=tracker.run_id,
            python_model=str(_DOOR),
            code_paths=[str(package)],
            artifacts={"optimizer": str(folder / "optimizer.safetensors"), "layouts": str(folder / "layouts.json")},
            signature=signature(stride),
            input_example=example(layouts, stride),
            metadata=metadata(optimizer, stride),
            pip_requirements=requirements(type(optimizer).__name__),
            registered_model_name=name,
        )
    log.info("registered version %s of %s", info.registered_model_version, name)
    return str(info.registered_model_version)
