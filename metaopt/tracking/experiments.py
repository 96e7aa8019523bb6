"""Experiments, MLflow's groups of runs: what they say of themselves."""

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

_DESCRIPTION = """\
metaopt records how networks train, learns an optimizer from the recordings, and judges it on unseen trainings.

- Did it work? Each run's description says what it did and its result in three lines. A *main job* has its phases below.
- Runs of one kind have the same metrics. Open the runs below an evaluation, select them, *Compare*: each is one \
contender, `val_loss` its curve, `speedup` how many times sooner than the base optimizer alone (*hold*) it arrives.
- `report.md` among the artifacts of an evaluation has all tables, the controls that must fail, and the limits.
- Phase 2 names the runs that it learned from, and they name it; a registered version names its run and its evaluations.
- Above the list, the chart symbol draws all runs at once; *Model training* at the top left hides what is for chatbots.
"""


def describe_experiment(client: MlflowClient, experiment_id: str) -> None:
    """Give an experiment a description, unless it has one."""
    if _is_described(client, experiment_id):
        return
    try:
        client.set_experiment_tag(experiment_id, MLFLOW_RUN_NOTE, _DESCRIPTION)
    except MlflowException:
        if not _is_described(client, experiment_id):  # else another process was faster
            raise


def _is_described(client: MlflowClient, experiment_id: str) -> bool:
    return bool(client.get_experiment(experiment_id).tags.get(MLFLOW_RUN_NOTE))
