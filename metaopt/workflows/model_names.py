"""Names of registered optimizers: by default one for each task and network.

Versions of one name are for the same problem, so that the champion of one problem never replaces that of another.
"""

import re
from collections.abc import Sequence

from ..core.errors import TrackingError
from ..metatraining.trained import split_problem_name
from ..tracking import CHAMPION, OLD_MODEL_NAME, champion_version, check_model_name

AUTO = "auto"
"""Value of `model_name` for the default name."""

CHAMPION_OF_CASE = "champion"
"""Value of `optimizer` for the champion of the task and the network."""


def model_name(task: str, target_model: str) -> str:
    """The default name for optimizers of a task and a network, such as `metaopt-digits-MLP`."""
    return f"metaopt-{_plain(task)}-{_plain(target_model)}"


def controller_name(task: str, target_model: str) -> str:
    """The default name for controllers of a task and a network, such as `metaopt-controller-digits-HostCNN`."""
    return f"metaopt-controller-{_plain(task)}-{_plain(target_model)}"


def check_given_name(given: str | None) -> None:
    """Check the name that the user chose, before the work begins.

    Raises:
        TrackingError: MLflow would refuse it when the optimizer is registered.
    """
    if given is not None and given != AUTO:
        check_model_name(given)


def chosen_name(given: str, problem_names: Sequence[str], data_name: str) -> str:
    """The name to register an optimizer under.

    Args:
        given: the name that the user chose, or `auto`.
        problem_names: the problems of its training ("MLP on digits").
        data_name: name of the training data, used if there are several problems.
    """
    if given != AUTO:
        return given
    if len(problem_names) > 1:
        return f"metaopt-{_plain(data_name)}"
    target_model, task = split_problem_name(problem_names[0])
    return model_name(task, target_model)


def champion_uri(task: str, target_model: str) -> str:
    """The URI of the champion of a task and a network; that of metaopt 0.1, which had one name for all, if it has none.

    Raises:
        TrackingError: there is no champion.
    """
    name = model_name(task, target_model)
    for each in (name, OLD_MODEL_NAME):
        if champion_version(each) is not None:
            return f"models:/{each}@{CHAMPION}"
    raise TrackingError(
        f"no optimizer for {target_model} on {task} is registered; expected a champion of {name}: train one with "
        "`metaopt train-optimizer` or `metaopt main`, or choose another with --optimizer, such as `builtin`"
    )


def _plain(name: str) -> str:
    """A name without characters that registries refuse."""
    return re.sub(r"[^\w-]+", "-", name)
