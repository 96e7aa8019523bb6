"""Runs one training of a comparison, in this process or in one of its own."""

import gc
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InvalidConfig, MetaoptError, WorkerDied
from ..core.processes import map_in_processes
from ..core.rng import isolated, seed_all
from ..core.signals import ended_by_signal
from ..core.text import reason_of, shown
from ..nowcast.optimizer import Nowcast
from .messages import AdviceOnce
from .results import Arm, Failure, Metrics, TrialResult
from .training import NO_ARGUMENTS, Training, as_script, load_training
from .trial import Trial, TrialRecord

METRIC = "metric"
"""Name of the value of a training function that returns a single number."""

NOWCAST_AVERAGE = "average of nowcast"
"""Name of the running average that `Nowcast` keeps."""

NOWCAST_BEST = "best weights of nowcast"
"""Name of the weights that the guard of `Nowcast` prefers at the end: the last ones, or their running average."""

_EXPECTED = "expected a number, numbers by name, or a function without arguments that returns one of these"
_NO_FUNCTION = "the training function returns numbers; return a function that evaluates the network to have this row"


@dataclass(frozen=True)
class TrialSettings:
    """What determines a training beside its function. Picklable.

    Attributes:
        forecaster: replaces the forecaster of the function.
        arguments: replace the arguments of `Nowcast` that the function gives.
        ema: decays of running averages of the plain training.
    """

    arm: Arm
    seed: int
    forecaster: str | None
    arguments: Mapping[str, Any]
    ema: Sequence[float]

    def trial(self) -> Trial:
        """A new trial."""
        return Trial(self.seed, self.arm, forecaster=self.forecaster, arguments=self.arguments, ema=self.ema)


def run_here(training: Training, settings: TrialSettings) -> TrialResult | Failure:
    """Run a training in this process, with all global generators seeded.

    Returns: its measurements; or what it raised, if that was not an error of metaopt.
    Raises:
        InvalidConfig: the function does not use the optimizer of the trial, or does not return a metric.
        MetaoptError: as for `Trial.optimizer` and `Nowcast`.
    """
    with _memory_freed():
        return _result_or_failure(training, settings)


def _result_or_failure(training: Training, settings: TrialSettings) -> TrialResult | Failure:
    trial = settings.trial()
    try:
        with isolated(), as_script(training.file):
            seed_all(settings.seed)
            returned = training.function(trial)
            seconds = trial.record.stop()
            _check_steps(training.name, trial.record)
            return _measured(training.name, settings, trial, returned, seconds)
    except MetaoptError:
        raise
    except (Exception, SystemExit) as error:
        if ended_by_signal(error):
            raise
        return Failure(settings.arm, settings.seed, _described(error, training))


@contextmanager
def _memory_freed() -> Iterator[None]:
    """Free what the block leaves behind: a network in reference cycles would take memory from the next training.

    What was there before is left out, because looking through it takes a second in a process with large libraries.
    """
    frozen_before = gc.get_freeze_count() > 0
    if not frozen_before:
        gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if not frozen_before:
            gc.unfreeze()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def run_in_process(training: Training, settings: TrialSettings, advice: AdviceOnce) -> TrialResult | Failure:
    """Run a training in a new process.

    Args:
        advice: what was told before, and is not told again.
    Raises:
        InvalidConfig: another process cannot import the function; or as for `run_here`.
    """
    if training.path is None:
        raise InvalidConfig(
            f"{training.name} cannot run in a process of its own, because it is not a function of a file; move it to "
            "the top level of a script, or leave processes out"
        )
    job = _Job(training.path, settings, torch.get_num_threads(), advice)
    ((_, result),) = map_in_processes(_run_job, [job], 1)
    if isinstance(result, MetaoptError) and not isinstance(result, WorkerDied):
        raise result
    if isinstance(result, Exception):
        return Failure(settings.arm, settings.seed, reason_of(result))
    found: TrialResult | Failure
    found, advice.told = result
    return found


@dataclass(frozen=True)
class _Job:
    path: str
    settings: TrialSettings
    threads: int
    advice: AdviceOnce


def _run_job(job: _Job) -> tuple[TrialResult | Failure, set[str]]:
    torch.set_num_threads(job.threads)
    with redirect_stdout(sys.stderr), job.advice.active():  # stdout is for the result of the command
        return run_here(load_training(job.path), job.settings), job.advice.told


def _check_steps(name: str, record: TrialRecord) -> None:
    """Check that a function trained with the optimizer that it was given.

    Raises:
        InvalidConfig: it did not.
    """
    if record.optimizer is None:
        raise InvalidConfig(
            f"{name} did not call trial.optimizer; expected optimizer = trial.optimizer(optimizer, model) after the "
            "optimizer is built, so that the training can use nowcasts"
        )
    if not record.steps:
        raise InvalidConfig(
            f"{name} never stepped the optimizer that trial.optimizer returned; use that one in the training loop, as "
            "in optimizer = trial.optimizer(optimizer, model)"
        )
    if not record.used_steps:
        raise InvalidConfig(
            f"{name} stepped the base optimizer, and not the one that trial.optimizer returned, so no nowcast could "
            "take place; use the returned one in the training loop"
        )


def _measured(name: str, settings: TrialSettings, trial: Trial, returned: Any, seconds: float) -> TrialResult:
    """The measurements of a training that has ended."""
    record = trial.record
    evaluate: Callable[[], Metrics] | None = None
    if callable(returned) and not isinstance(returned, Tensor):

        def evaluate() -> Metrics:
            seed_all(settings.seed)  # equal random numbers for all weights of a random seed
            return as_metrics(f"the evaluation of {name}", returned())

    overhead = record.overhead
    metrics = evaluate() if evaluate else as_metrics(name, returned)
    averaged, reason = _averaged(record, evaluate)
    kept = None
    if record.guarded and NOWCAST_AVERAGE in averaged:
        kept = _preferred(record.optimizer)
        averaged[NOWCAST_BEST] = averaged[NOWCAST_AVERAGE] if kept == "averaged" else metrics
    return TrialResult(
        settings.arm,
        settings.seed,
        record.steps,
        seconds,
        metrics,
        averaged,
        reason,
        kept,
        tuple(record.curve),
        record.events,
        record.digests,
        overhead,
    )


def _averaged(record: TrialRecord, evaluate: Callable[[], Metrics] | None) -> tuple[dict[str, Metrics], str | None]:
    """The metrics of the running averages of the weights by name; without any, the reason."""
    optimizer, averages = record.optimizer, record.averages
    has_average = isinstance(optimizer, Nowcast) and optimizer.average is not None
    if averages is None and not has_average:
        return {}, "no running average was kept"
    if evaluate is None:
        return {}, _NO_FUNCTION
    found = {}
    for decay in averages.decays if averages else ():
        assert averages is not None
        with averages.in_model(decay):
            found[f"EMA {decay:g}"] = evaluate()
    if isinstance(optimizer, Nowcast) and has_average:
        with optimizer.averaged_weights():
            found[NOWCAST_AVERAGE] = evaluate()
    return found, None


def _preferred(optimizer: torch.optim.Optimizer | None) -> str:
    """The kind of weights that the guard prefers."""
    assert isinstance(optimizer, Nowcast)
    with optimizer.best_weights() as best:
        return best.kind


def as_metrics(name: str, returned: Any) -> dict[str, float]:
    """What a training function or its evaluation returned, as numbers by name.

    Raises:
        InvalidConfig: it is no number, and no mapping of names to numbers.
    """
    if isinstance(returned, Mapping) and returned:
        return {str(key): _number(name, f"{shown(str(key))} = ", value) for key, value in returned.items()}
    return {METRIC: _number(name, "", returned)}


def _number(name: str, which: str, value: Any) -> float:
    if isinstance(value, Tensor | np.generic | np.ndarray) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    hint = ". Is a return missing at its end?" if value is None else ""
    raise InvalidConfig(f"{name} returned {which}{shown(value)}; {_EXPECTED}{hint}")


def _described(error: BaseException, training: Training) -> str:
    """An error, and where it was raised: in the user's own code if it is in the stack."""
    frames = traceback.extract_tb(error.__traceback__)
    folder = str(training.file.parent) if training.file else None
    own = [frame for frame in frames if folder and frame.filename.startswith(folder)] or frames
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    reads_arguments = isinstance(error, SystemExit) or any("argv" in (frame.line or "") for frame in own)
    return f"{reason_of(error)}{place}{NO_ARGUMENTS if reads_arguments else ''}"
