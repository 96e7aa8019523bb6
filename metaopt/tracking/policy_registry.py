"""Registered policies: versions that hold the file of a controller, which is loaded without running code."""

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME

from ..core.errors import FileFormatError, TrackingError
from ..core.text import shown
from ..growth.policy import Policy, description_of
from ..growth.policy import load_policy as load_policy_file
from .cards import describe_version
from .connection import connect
from .earlier_versions import earlier_version, same_weights
from .lineage import run_link
from .model_registry import CANDIDATE, promote_newest
from .store_errors import translate_errors
from .tracker import MlflowTracker

_FILE = "policy.safetensors"
_IN_A_RUN = "policy/controller_policy.safetensors"
_RUN = re.compile(r"runs:/([0-9a-f]{32})/?")

_CARD = """\
A controller of growth: decides when branches grow in a network while it trains, and when they are removed.
{about}
**Actions:** {actions}.

**Use it:**

```
metaopt train-target --controller models:/{name}/{version}
```

**Limits:** it was trained for networks with these blueprints at their taps, and for trainings of about the same \
length. Compare it with what needs no training: \
`metaopt evaluate-controller models:/{name}/{version} --against heuristic`.
Trained by run {run}
"""

log = logging.getLogger(__name__)


def register_policy(
    tracker: MlflowTracker, policy: Policy, file: Path, *, name: str, description: str, tags: Mapping[str, Any]
) -> int:
    """Log the file of a policy as a model of the run and register it as a new version, with the alias `candidate`.

    In a job of a queue, a version that an earlier attempt has registered is completed instead.

    Args:
        file: the file of the policy.
        description: training and returns, in Markdown, for the version's card.
    Returns: the number of the version.
    Raises:
        TrackingError: the store raised an error.
    """
    tracker.flush()
    quiet = redirect_stderr(StringIO())  # MLflow prints a message that is logged below; errors are raised
    with translate_errors(f"cannot register {name}", "check the store and the name"), quiet:
        version = earlier_version(tracker.client, name, partial(_is_same, policy))
        if version is None:
            version = _log_model(tracker.run_id, policy, file, name)
        for key, value in tags.items():
            tracker.client.set_model_version_tag(name, str(version), key, str(value))
        run = run_link(tracker.client, tracker.run_id)
        actions = ", ".join(policy.actions)
        card = _CARD.format(about=description, actions=actions, name=name, version=version, run=run)
        describe_version(tracker.client, name, version, card)
    promote_newest(name, version, CANDIDATE)
    return version


def load_policy(source: str | Path) -> Policy:
    """Load a policy. Only safetensors and JSON are read; no code of the model runs.

    Args:
        source: a file; `models:/<name>@<alias>` or `models:/<name>/<version>`; or `runs:/<run ID>` of phase 3.
    Raises:
        TrackingError: the source does not exist in the store, or is no policy.
        FileFormatError: the file is damaged.
    """
    with policy_file(source) as path:
        return load_policy_file(path)


@contextmanager
def policy_file(source: str | Path) -> Iterator[Path]:
    """The file of a policy. What is in the store is downloaded for the time of the block.

    Args:
        source: as for `load_policy`.
    Raises:
        TrackingError: the source does not exist in the store, or is no policy.
    """
    address = str(source)
    if isinstance(source, Path) or Path(address).is_file():
        yield Path(source)
        return
    run = _RUN.fullmatch(address)
    if run is None and not address.startswith("models:/"):
        raise TrackingError(
            f"no policy at {shown(address)}; expected an existing file, models:/<name>@<alias>, "
            "models:/<name>/<version> or runs:/<run ID>"
        )
    path = f"runs:/{run[1]}/{_IN_A_RUN}" if run else f"{address.rstrip('/')}/{_FILE}"
    remedy = "choose a version in `mlflow ui` that train-controller registered"
    with tempfile.TemporaryDirectory() as folder:
        with translate_errors(f"cannot load a policy from {address}: it has no {_FILE}", remedy):
            connect()
            file = Path(mlflow.artifacts.download_artifacts(path, dst_path=folder))
        yield file


def _log_model(run_id: str, policy: Policy, file: Path, name: str) -> int:
    info = Model.log(
        artifact_path=None,
        name=name,
        flavor=_PolicyFlavor,
        run_id=run_id,
        file=file,
        actions=policy.actions,
        registered_model_name=name,
    )
    log.info("registered version %s of %s", info.registered_model_version, name)
    return int(info.registered_model_version)


def _is_same(policy: Policy, uri: str) -> bool:
    """Whether a version is a policy of the same description and weights."""
    try:
        found = load_policy(uri)
    except (TrackingError, FileFormatError):
        return False
    return description_of(found) == description_of(policy) and same_weights(found, policy)


class _PolicyFlavor:
    """What MLflow calls to write the folder of a model. It has no loader: `load_policy` reads the file."""

    @staticmethod
    def save_model(path: str, mlflow_model: Model, file: Path, actions: list[str]) -> None:
        """Write the folder of a model: the file of the policy, and a description for MLflow."""
        folder = Path(path)
        folder.mkdir(parents=True)
        shutil.copyfile(file, folder / _FILE)
        mlflow_model.add_flavor("metaopt_policy", file=_FILE, actions=actions)
        mlflow_model.save(str(folder / MLMODEL_FILE_NAME))
