"""Checks that the trainings of a comparison are twins: same initial weights and batches, and other random seeds differ.

Weights are compared by digests after the first steps, where no nowcast has taken place yet. So the training with
nowcasts is there a second plain training, and a training that is not deterministic is found without a further one.
"""

from collections.abc import Sequence

from ..core.errors import InvalidConfig
from ..core.text import counted, shown
from .results import Arm, TrialResult

_IF_DATA_CHANGED = (
    " If the data or the machine changed since an earlier comparison stored one of them, --overwrite true runs both "
    "again."
)


def check_seeds_differ(name: str, results: Sequence[TrialResult]) -> None:
    """Check that trainings with nowcasts, or without, of different random seeds are different trainings.

    Raises:
        InvalidConfig: two of them are the same, so the function seeds by itself.
    """
    seen: dict[tuple[Arm, tuple[str, ...]], int] = {}
    for result in results:
        digests = result.digests
        if not any(step > 0 for step in digests):
            continue
        key = result.arm, tuple(digests[step] for step in sorted(digests))
        if key in seen and seen[key] != result.seed:
            raise InvalidConfig(
                f"{name} trains the same way with the random seeds {seen[key]} and {result.seed}: it sets a random "
                "seed of its own, or draws nothing at random. Remove calls such as torch.manual_seed(0), or use "
                "trial.seed in them; all global generators are seeded with it already"
            )
        seen[key] = result.seed


def check_metrics_equal(name: str, results: Sequence[TrialResult]) -> None:
    """Check that all trainings returned the same metrics.

    Raises:
        InvalidConfig: two of them did not.
    """
    for result in results[1:]:
        for metrics in (result.metrics, *result.averaged.values()):
            if metrics.keys() != results[0].metrics.keys():
                raise InvalidConfig(
                    f"{name} returned {', '.join(results[0].metrics)} for the {results[0].arm} training of random seed "
                    f"{results[0].seed}, but {', '.join(metrics)} for the {result.arm} training of random seed "
                    f"{result.seed}; return the same metrics in all trainings"
                )


def chosen_metric(name: str, metrics: Sequence[str], metric: str | None) -> str:
    """The name of the metric to compare.

    Args:
        metrics: names of those that the function returned.
        metric: what the user chose.
    Raises:
        InvalidConfig: the function returned several and none was chosen, or not the chosen one.
    """
    if metric is None and len(metrics) == 1:
        return metrics[0]
    if metric is None:
        raise InvalidConfig(
            f"{name} returned {counted(len(metrics), 'metric')}: {', '.join(metrics)}; choose one with --metric. "
            "Trainings that ended are stored"
        )
    if metric not in metrics:
        if len(metrics) == 1 and metrics[0] == "metric":
            return metric  # a single number has no name, so the user may name it
        raise InvalidConfig(f"metric is {shown(metric)}, but {name} returned {', '.join(metrics)}; choose one of these")
    return metric


def doubts_about_twins(results: Sequence[TrialResult]) -> list[str]:
    """Reasons why the trainings of a random seed are not exact twins, in sentences."""
    plain = {result.seed: result for result in results if result.arm is Arm.PLAIN}
    pairs = [(plain[each.seed], each) for each in results if each.arm is Arm.NOWCAST and each.seed in plain]
    apart = [one.seed for one, other in pairs if one.comparison != other.comparison]
    found = []
    differing = {one.seed: step for one, other in pairs if (step := _first_difference(one, other)) is not None}
    if differing:
        seed, step = min(differing.items(), key=lambda item: item[1])
        where = "initial weights" if step == 0 else f"weights after {counted(step, 'step')}"
        found.append(
            f"The training is not deterministic: in {len(differing)} of {counted(len(pairs), 'pair')} the twins have "
            f"different {where}, before any nowcast (random seed {seed}). The interval includes this noise, and more "
            "random seeds make it narrower. If state stays in memory between trainings, --processes true removes it."
            f"{_IF_DATA_CHANGED if apart else ''}"
        )
    if apart:
        found.append(
            f"In {len(apart)} of {counted(len(pairs), 'pair')} one training was stored by an earlier comparison. "
            "Such twins ran at different times, so their seconds are not compared; --overwrite true runs both again."
        )
    lengths = [one.seed for one, other in pairs if one.steps != other.steps]
    if lengths:
        found.append(f"The twins of random seed {lengths[0]} took different numbers of steps.")
    idle = [other.seed for _, other in pairs if not other.events]
    if idle:
        found.append(
            f"No nowcast took place in {len(idle)} of {counted(len(pairs), 'training')}: a training is shorter than "
            "the interval between nowcasts (every), or too short for one within the limit on their time. "
            'Without this limit: --nowcast "max_overhead=None".'
        )
    return found


def _first_difference(plain: TrialResult, nowcast: TrialResult) -> int | None:
    """The first step before any nowcast after which twins have different weights; None if there is none."""
    first = nowcast.events[0].step if nowcast.events else max(plain.steps, nowcast.steps)
    ours, theirs = plain.digests, nowcast.digests
    return next(
        (step for step in sorted(ours) if step in theirs and step <= first and ours[step] != theirs[step]), None
    )
