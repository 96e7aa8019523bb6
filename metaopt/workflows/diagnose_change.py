"""Diagnosis: what a change did to a network, measured by probes on two of its snapshots, or on a nowcast."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ..core.config import option, trust_option
from ..core.devices import ComputeConfig, find_device, threads_for
from ..core.errors import InvalidConfig, LayoutMismatch, TrackingError
from ..core.text import counted, shown
from ..diagnostics.diagnosis import Diagnosis, diagnosis_report
from ..diagnostics.report_folder import REPORTS, InputFile, Inputs, write_report
from ..generative.files import load_optimizer
from ..metatraining.problem import InnerProblem
from ..probes import applicable, get_probes, run_probe, sample_examples
from ..tasks import Split
from ..trajectories import Trajectory
from ..trajectories.recorder import FROZEN
from ..trajectories.recording_file import read_run_id
from ..weights.files import files_of
from ..weights.model_files import copy_into
from .generate_weights import optimizer_of_case, predict_at, snapshot_at, warn_of_averaging

log = logging.getLogger(__name__)


class DiagnoseConfig(ComputeConfig):
    """Settings of a diagnosis: the probes, both sides of the comparison, the examples, and the folder of the report."""

    probes: tuple[str, ...] = option(
        default=(), help="Probes to run, see `metaopt list probes`; all: all that apply to the network."
    )
    trajectory: Path = option(
        default=Path("trajectories/target/seed_0"), help="Folder of the trajectory of the network."
    )
    from_step: int | None = option(
        default=None,
        help="Snapshot before the change [steps]; the first one by default, the last one with --nowcast.",
        at_least=0,
    )
    to_step: int | None = option(
        default=None, help="Snapshot after the change [steps]; the last one by default.", at_least=0
    )
    against: Path | None = option(
        default=None, help="Folder of another trajectory of the same network: its last snapshot is before the change."
    )
    nowcast: str | None = option(
        default=None,
        help="The change is a nowcast from the snapshot, by this optimizer: `champion`, `builtin`, a model URI, a run "
        "ID or a file.",
    )
    horizon: float | None = option(default=None, help="Horizon of the nowcast [steps].", above=0.0)
    split: str = option(
        default="validation",
        help="Split of the task from which the examples are.",
        choices=("train", "meta", "guard", "validation"),
    )
    examples: int = option(default=256, help="Examples to measure on, always the same ones [count].", at_least=1)
    data_dir: Path | None = option(
        default=None, help="Folder of the task's data, if it has moved.", changes_result=False
    )
    report_dir: Path = option(default=REPORTS, help="Folder of the report.", changes_result=False)
    trust_config: bool = trust_option()

    def __post_init__(self) -> None:
        """Check each value, and that the change is described in one way.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        if self.nowcast is None and self.horizon is not None:
            raise InvalidConfig(f"horizon is {self.horizon:g}, of which nowcast? Give one, such as --nowcast builtin")
        if self.nowcast is not None:
            if self.horizon is None:
                raise InvalidConfig("a nowcast needs a horizon [steps], such as --horizon 100")
            if self.against is not None or self.to_step is not None:
                other = "against" if self.against is not None else "to_step"
                raise InvalidConfig(f"the change is a nowcast from the snapshot at from_step; give no {other}")
        if self.against is not None and self.from_step is not None:
            raise InvalidConfig("with against, the last snapshot of that trajectory is before; give no from_step")


@dataclass(frozen=True)
class Diagnosed:
    """Result of a diagnosis: what was measured, the folder of the report, and the run that has a copy, if any."""

    diagnosis: Diagnosis
    report: Path
    run_id: str | None


def diagnose(config: DiagnoseConfig) -> Diagnosed:
    """Compare a network before and after a change by probes, and write a report.

        from metaopt import workflows

        config = workflows.DiagnoseConfig(probes="weight-norms,loss-line", trajectory="trajectories/digits/seed_0")
        diagnosed = workflows.diagnose(config)
        print(diagnosed.report, diagnosed.diagnosis.results["loss-line"].values["barrier"])

    If the trajectory belongs to a run of the tracking store, the files of the report are artifacts of it, too.

    Raises:
        UnknownName: there is no such probe.
        InvalidConfig: no such device or snapshot, a probe that does not apply, or nothing to compare.
        UntrustedCode: the trajectory names code, and the user does not trust it.
        TrajectoryError, FileFormatError: a trajectory is missing or damaged, or the network grew in between.
        LayoutMismatch: the networks have different weights.
        TaskDataError: the task's data is missing.
        StorageError: the report cannot be written.
    """
    get_probes(config.probes)  # before anything is read
    device = find_device(config.device)
    trajectory = Trajectory.open(config.trajectory)
    before, after = _nowcast(config, trajectory, device) if config.nowcast else _snapshots(config, trajectory)
    problem = InnerProblem.from_trajectory(
        trajectory.part_of(after.index),
        config.data_dir,
        trusted=config.trust_config,
        advice="Give data_dir if its data has moved",
    )
    with threads_for(problem.layout.size, config.threads):
        first, second = (_network(problem, each).to(device) for each in (before, after))
        examples = sample_examples(problem.task, cast(Split, config.split), config.examples)
        probes, reasons = applicable(config.probes, second, problem.task)
        results = {name: run_probe(each, first, second, problem.task, examples) for name, each in probes.items()}
    diagnosis = Diagnosis(
        before=before.label,
        after=after.label,
        network=f"{trajectory.run['target_model']} on {trajectory.run['task']}",
        examples=f"{counted(len(examples.labels), 'example')} of the split {config.split}",
        probes=probes,
        results=results,
        reasons=reasons,
    )
    parameters = {name: value for name, value in config.to_mapping().items() if name != "report_dir"}
    files = [InputFile.of(path) for side in (before, after) for path in side.files]
    report = diagnosis_report(diagnosis, trajectory.name, Inputs([*dict.fromkeys(files)], parameters, seeds=(0,)))
    folder = write_report(report, config.report_dir)
    return Diagnosed(diagnosis, folder, _attached(trajectory, folder, f"reports/{report.tool}/{report.tag}"))


@dataclass(frozen=True)
class _Side:
    """A network before or after the change: what it is, its weights and buffers, and the files that they come from.

    Attributes:
        index: its snapshot, or that from which it is forecast.
    """

    label: str
    tensors: Mapping[str, Tensor]
    files: Sequence[Path]
    index: int


def _snapshots(config: DiagnoseConfig, trajectory: Trajectory) -> tuple[_Side, _Side]:
    """Two snapshots: of one trajectory, or the last one of another trajectory as the first."""
    index = snapshot_at(trajectory, config.to_step)
    after = _side(trajectory, index)
    if config.against is not None:
        other = Trajectory.open(config.against)
        return _side(other, len(other) - 1), after
    first = trajectory.segment(index).start if config.from_step is None else snapshot_at(trajectory, config.from_step)
    if first == index:
        raise InvalidConfig(
            f"both sides are the snapshot at step {trajectory.steps[index]} of {trajectory.folder}, whose snapshots "
            f"are at {shown(trajectory.steps)}; give another from_step or to_step, or another trajectory with against"
        )
    if trajectory.segment(first) != trajectory.segment(index):
        start = trajectory.steps[trajectory.segment(index).start]
        raise InvalidConfig(
            f"the network grew between the steps {trajectory.steps[first]} and {trajectory.steps[index]}, and probes "
            f"compare networks of one architecture; give a from_step of {start} or more"
        )
    return _side(trajectory, first), after


def _nowcast(config: DiagnoseConfig, trajectory: Trajectory, device: torch.device) -> tuple[_Side, _Side]:
    """A snapshot, and the nowcast from it."""
    optimizer = load_optimizer(optimizer_of_case(str(config.nowcast), config.trajectory))
    warn_of_averaging(trajectory, optimizer)
    index = snapshot_at(trajectory, config.from_step)
    before, t_end = _side(trajectory, index), trajectory.steps[index] + float(config.horizon or 0)
    label = f"nowcast by {config.nowcast} for step {t_end:g}"
    predicted = predict_at(trajectory, index, t_end, optimizer, device)
    return before, _Side(label, {**before.tensors, **predicted}, (), index)


def _side(trajectory: Trajectory, index: int) -> _Side:
    weights = trajectory.segment(index).layout.unflatten(trajectory.weights(index))
    tensors = {**trajectory.frozen(), **trajectory.buffers(index), **weights}
    label = f"step {trajectory.steps[index]} of {trajectory.folder}"
    frozen = [path for path in trajectory.files() if path.name.endswith(f"{FROZEN}.safetensors")]
    return _Side(label, tensors, [*files_of(trajectory.snapshots[index].path), *frozen], index)


def _network(problem: InnerProblem, side: _Side) -> nn.Module:
    """The network of one side.

    Raises:
        LayoutMismatch: the weights are those of another architecture.
    """
    model = problem.network()
    try:
        copy_into(model, side.tensors)
    except LayoutMismatch as error:
        raise LayoutMismatch(
            f"{side.label} is another network than {type(model).__name__} of the trajectory: {error}; give a "
            "trajectory of the same network"
        ) from error
    return model


def _attached(trajectory: Trajectory, report: Path, folder: str) -> str | None:
    """Log a report to the run that recorded a trajectory; a store that fails is a warning.

    Returns: the ID of the run; None if there is none, or the store does not accept the report.
    """
    run_id = read_run_id(trajectory.folder)
    if run_id is None:
        return None
    from ..tracking import attach_files  # MLflow takes seconds to import

    try:
        attach_files(run_id, sorted(report.iterdir()), folder)
    except TrackingError as error:
        log.warning("the report is not in the tracking store: %s", error)
        return None
    return run_id
