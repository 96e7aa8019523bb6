"""Names that MLflow refuses, checked by MLflow's own rules before the work begins."""

from collections.abc import Callable, Iterable

from mlflow.exceptions import MlflowException
from mlflow.utils.validation import (
    _validate_experiment_name,
    _validate_logged_model_name,
    _validate_metric_name,
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
)

from ..core.errors import TrackingError
from ..core.text import shortened, shown


def check_model_name(name: str) -> str:
    """Return the name of a registered model unchanged if MLflow accepts it.

        from metaopt.tracking import check_model_name

        check_model_name("perceiver-v1_2")

    Raises:
        TrackingError: MLflow would refuse it when the model is registered.
    """
    for rule in (_validate_model_name, _validate_logged_model_name):  # a version is also a logged model of that name
        _check(rule, name, f"the model name {shown(name)}", 'Choose a name such as "perceiver-v1_2" with --model-name')
    return name


def check_alias(alias: str) -> str:
    """Return the alias of a model version unchanged if MLflow accepts it.

    Raises:
        TrackingError: MLflow reserves or refuses it.
    """
    remedy = "Choose a word such as champion with --alias, not `latest` or `v1`"
    for rule in (_validate_model_alias_name, _validate_model_alias_name_reserved):
        _check(rule, alias, f"the alias {shown(alias)}", remedy)
    return alias


def check_experiment_name(name: str) -> str:
    """Return the name of an experiment unchanged if MLflow accepts it.

    Raises:
        TrackingError: MLflow refuses it.
    """
    remedy = "Choose another name with MLFLOW_EXPERIMENT_NAME"
    return _check(_validate_experiment_name, name, f"the experiment name {shown(name)}", remedy)


def check_metric_names(names: Iterable[str]) -> None:
    """Check names that become a part of metric names, such as those of the parts of a mixture.

    Raises:
        TrackingError: MLflow would refuse a metric of that name.
    """
    for name in names:
        _check(_validate_metric_name, name, f"the name {shown(name)}, which names a metric,", "Choose another name")


def metric_problem(name: str) -> str | None:
    """Why MLflow refuses the name of a metric; None if it accepts it."""
    try:
        _validate_metric_name(name)
    except MlflowException as error:
        return str(error)
    return None


def _check(rule: Callable[[str], None], name: str, what: str, remedy: str) -> str:
    try:
        rule(name)
    except MlflowException as error:
        reason = shortened(str(error).rstrip("."), 400)
        raise TrackingError(f"MLflow refuses {what} ({reason}). {remedy}") from error
    return name
