"""Names of models that MLflow would refuse are refused before the work begins."""

import pytest

from metaopt import workflows
from metaopt.core.errors import TrackingError
from metaopt.workflows.model_names import model_name


@pytest.mark.parametrize(
    "call",
    [
        lambda: workflows.main(workflows.MainConfig(model_name="perceiver-v1.2")),
        lambda: workflows.train(workflows.TrainOptimizerConfig(model_name="perceiver-v1.2")),
        lambda: workflows.register(workflows.RegisterConfig(checkpoint="x", model_name="perceiver-v1.2")),
    ],
    ids=["main", "train", "register"],
)
def test_a_model_name_that_mlflow_refuses_starts_no_run(store, client, call):
    with pytest.raises(TrackingError, match="MLflow refuses the model name"):
        call()
    assert client.get_experiment_by_name("metaopt") is None


def test_a_part_of_a_mixture_that_cannot_name_a_metric_starts_no_run(store, client):
    (store / "mixture.yaml").write_text("it's: {task: digits, target_model: MLP}\n", encoding="utf-8")
    with pytest.raises(TrackingError, match="which names a metric"):
        workflows.train(workflows.TrainOptimizerConfig(rounds=1, mixture=store / "mixture.yaml"))
    assert client.get_experiment_by_name("metaopt") is None


def test_the_default_name_is_one_that_mlflow_accepts():
    assert model_name("digits", "my.package:Net") == "metaopt-digits-my-package-Net"
