"""The list of runs in the MLflow UI: a shared view with the columns of metaopt, and addresses of its pages."""

import json

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from .tags import EXPERIMENT_KIND_TAG, VIEW_TAG

_VIEW = "metaopt"
_LAYOUT = "workflowType=machine_learning"  # else the UI opens in its layout for generative AI
_ATTRIBUTES = ("Dataset", "Models")
_METRICS = ("speedup", "final_val_loss", "best_baseline_speedup", "best_baseline_val_loss", "val_loss", "val_objective")
_TRAINING = "custom_model_development"  # MLflow's kind of an experiment with training runs


def run_page(experiment_id: str, run_id: str) -> str:
    """The address of the page of a run, after that of the UI."""
    return f"/#/experiments/{experiment_id}/runs/{run_id}?{_LAYOUT}"


def run_list(experiment_id: str) -> str:
    """The address of the list of runs with the columns of metaopt, after that of the UI."""
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={_VIEW}&{_LAYOUT}"


def save_view(client: MlflowClient, experiment_id: str) -> None:
    """Save the view of the list with an experiment, and its kind if it has none.

    Raises:
        MlflowException: the store failed.
    """
    tags = client.get_experiment(experiment_id).tags
    columns = [f"attributes.`{name}`" for name in _ATTRIBUTES] + [f"metrics.`{name}`" for name in _METRICS]
    wanted = {VIEW_TAG + _VIEW: json.dumps({"selectedColumns": columns})}
    if EXPERIMENT_KIND_TAG not in tags:
        wanted[EXPERIMENT_KIND_TAG] = _TRAINING
    for name, value in wanted.items():
        if tags.get(name) != value:
            try:
                client.set_experiment_tag(experiment_id, name, value)
            except MlflowException:
                if client.get_experiment(experiment_id).tags.get(name) != value:  # else another process set it
                    raise
