"""Whole evaluations, small enough to run in seconds."""

import json
import math
from contextlib import contextmanager

import pytest
import torch

from metaopt.core.errors import Diverged, InvalidConfig, StorageError, UnknownName
from metaopt.core.tracker import SilentTracker
from metaopt.evaluation.baselines import DERIVED_BASELINES
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.observers import HoldObserver
from metaopt.evaluation.paired_runs import RunSetup, train_contender
from metaopt.evaluation.predictions import CONTROLS, SinglePredictions, State, state_at
from metaopt.evaluation.results import label
from metaopt.evaluation.runner import PairedEvaluation, contender_name
from metaopt.generative import get_optimizer_model
from metaopt.generative.base import GenerativeOptimizer
from metaopt.generative.extrapolation import HoldConfig
from metaopt.tasks import load_task
from metaopt.tasks.measure import example_losses, mean_loss
from metaopt.workflows.evaluate_optimizer import compare


class RecordingTracker(SilentTracker):
    """Keeps everything in memory."""

    def __init__(self):
        self.metrics_at, self.texts, self.figures, self.children = {}, {}, [], {}

    def metrics(self, values, step):
        self.metrics_at.setdefault(step, {}).update(values)

    def text(self, text, name):
        self.texts[name] = text

    def figure(self, figure, name):
        self.figures.append(name)

    @contextmanager
    def child(self, name):
        self.children[name] = RecordingTracker()
        yield self.children[name]


class Memory(GenerativeOptimizer):
    """Returns the same weights for every history, which the controls must detect."""

    Config = HoldConfig

    def __init__(self, weights):
        super().__init__()
        self.config, self.weights = HoldConfig(), weights

    @property
    def history(self):
        return 3

    def extrapolate(self, history, t_history, t_end, layout):
        return self.weights.expand(len(history), -1)


def small(**changes):
    options = {
        "target_model": "MLP",
        "target_options": {"widths": [8]},
        "steps": 24,
        "every": 8,
        "stride": 4,
        "horizons": [8],
        "evaluate_every": 4,
        "seeds": 2,
        "lr": 0.01,
        "cache_dir": None,
    }
    return EvaluateConfig.from_mapping({**options, **changes})


@pytest.fixture(scope="module")
def task():
    return load_task("digits")


@pytest.fixture(scope="module")
def evaluated_line(tmp_path_factory):
    torch.manual_seed(0)
    output = tmp_path_factory.mktemp("evaluation") / "sub" / "result.json"
    tracker = RecordingTracker()
    return compare(small(output=str(output)), get_optimizer_model("Line"), tracker), tracker, output


def test_all_contenders_are_measured_at_the_same_steps(evaluated_line):
    comparison, _, _ = evaluated_line
    assert comparison.contenders == [
        "hold",
        *DERIVED_BASELINES,
        "line",
        "average",
        "slopes",
        "judged line + EMA",
        "judged line",
    ]
    assert {tuple(curve.steps) for curve in comparison.curves} == {(4, 6, 8, 12, 16, 18, 20, 24)}
    assert [curve.seed for curve in comparison.curves_of("hold")] == [1000, 1001]


def test_each_contender_runs_at_the_learning_rates_that_were_chosen_for_it(task):
    config = small(learning_rates=(0.01, 0.02), seeds=1, baselines="all")
    chosen = {"hold": ["0.01"], "EMA 0.98": ["0.02"], "Muon + average": ["0.01", "0.02"], "line": ["0.02"]}
    found = PairedEvaluation(config, task, {"line": get_optimizer_model("Line")}, chosen).compare()
    assert {name: [curve.rate for curve in found.curves_of(name)] for name in found.contenders} == chosen
    assert found.predictions == ()


def test_paired_runs_are_equal_until_the_first_nowcast_and_for_equal_contenders(evaluated_line):
    comparison, _, _ = evaluated_line
    for hold, line, candidate in zip(*(comparison.curves_of(n) for n in ("hold", "line", "judged line")), strict=True):
        assert hold.losses[0] == line.losses[0]
        assert line.losses == candidate.losses
        assert line.losses != hold.losses


def test_predictions_cover_every_nowcast_and_control(evaluated_line):
    comparison, _, _ = evaluated_line
    assert comparison.controls == list(CONTROLS)
    for name in ("line", "average", "slopes", "judged line", *CONTROLS):
        assert [(p.seed, p.step) for p in comparison.predictions_of(name)] == [
            (seed, step) for seed in (1000, 1001) for step in (8, 16, 24)
        ]
    assert [p.error is None for p in comparison.predictions_of("line")] == [False, False, True] * 2


def test_the_result_is_written_to_the_file_and_to_the_tracker(evaluated_line):
    comparison, tracker, output = evaluated_line
    result = json.loads(output.read_text())
    assert (result["schema"], result["judged"]) == (3, comparison.candidate)
    assert "guard_calls" in result["curves"][-1]["events"][0]
    assert len(result["summary"]["standings"]) == 11
    assert set(tracker.texts) == {"evaluation.json", "contenders.csv", "report.md", "report.html"}
    assert tracker.figures == ["loss_curves", "steps_to_target", "nowcasts", "plane", "layers", "horizons"]
    assert set(tracker.children) == {f"{label(name, 'Adam')}: MLP on digits" for name in comparison.contenders}
    assert list(tracker.children["Adam alone: MLP on digits"].metrics_at) == [4, 6, 8, 12, 16, 18, 20, 24]
    shared = {"val_loss", "speedup", "final_val_loss", "steps_to_target"}
    assert all(shared <= set(child.metrics_at[24]) for child in tracker.children.values())
    assert shared | {"gain", "gain_zero_history", "gain_another_runs_history"} <= set(tracker.metrics_at[24])
    candidate = tracker.children["judged line: MLP on digits"]
    assert candidate.metrics_at[24]["val_loss"] == tracker.metrics_at[24]["val_loss"]


def test_same_random_seed_gives_the_same_figures(evaluated_line, caplog):
    caplog.set_level("INFO")
    again = compare(small(seeds=1, controls=False), get_optimizer_model("Line"), SilentTracker())
    assert "final validation loss Adam alone 0." in caplog.text or "final validation loss Adam alone 1." in caplog.text
    assert "hold" not in caplog.text.split()
    assert [c.losses for c in again.curves] == [c.losses for c in evaluated_line[0].curves if c.seed == 1000]
    assert again.controls == []


def test_the_controls_detect_an_optimizer_that_memorised(task):
    config = small(seeds=1, every=12, steps=24)
    solution = HoldObserver(setup := RunSetup(config, task, 7), {})
    train_contender(RunSetup(small(steps=200, every=12), task, 7), "hold", observer=solution)
    comparison = compare(config, Memory(solution.snapshots[200]), SilentTracker())
    real = [p.loss_after for p in comparison.predictions_of("memory")]
    assert setup.layout.size == len(solution.snapshots[200])
    assert all([p.loss_after for p in comparison.predictions_of(name)] == real for name in CONTROLS)


def test_an_untrained_perceiver_is_hold(task):
    setup = RunSetup(small(), task, 0)
    hold = train_contender(setup, "hold", observer=(observer := HoldObserver(setup, {})))
    perceiver = get_optimizer_model("PerceiverOptimizer").eval()
    assert train_contender(setup, "perceiver", perceiver).losses == hold.losses
    assert all(
        p.loss_before == p.loss_after
        for p in SinglePredictions(setup, observer.snapshots).predict("perceiver", perceiver)
    )


def test_the_guard_uses_the_same_examples_for_all_proposals_and_others_at_the_next_nowcast(task):
    setup = RunSetup(small(guard_batch=50), task, 0)
    first, again, later = (torch.cat([batch.labels for batch in setup.guard_batches(step)]) for step in (8, 8, 16))
    assert len(first) == 50
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_the_guard_uses_each_example_once_and_none_of_training_or_validation(task):
    setup = RunSetup(small(guard_batch=10_000), task, 0)
    seen = torch.cat([batch.inputs.flatten(1) for batch in setup.guard_batches(8)])
    held_out = torch.cat([task.splits[name][:].inputs.flatten(1) for name in ("guard", "meta")])
    assert torch.equal(seen.sort(0).values, held_out.sort(0).values)


def test_the_mean_of_the_example_losses_is_the_mean_loss(task):
    setup = RunSetup(small(), task, 0)
    model, batches = setup.build().train(), [*task.splits["guard"].in_order(30)]
    losses = example_losses(model, task, batches)
    assert len(losses) == len(task.splits["guard"])
    assert float(losses.mean()) == pytest.approx(mean_loss(model, task, batches), rel=1e-5)
    assert model.training


def test_the_running_average_equals_a_plain_implementation(task):
    config = small(evaluate_every=2)
    setup, seen = RunSetup(config, task, 0), []
    train_contender(setup, "hold", observer=lambda step, weights, optimizer: seen.append(weights))
    hold = train_contender(setup, "hold", observer=(observer := HoldObserver(setup, DERIVED_BASELINES)))
    total, mass = 0.0, 0.0
    for weights in seen[1:]:
        total, mass = 0.98 * total + 0.02 * weights, 0.98 * mass + 0.02
    average = total / mass
    assert observer.curves(hold)[0].losses[-1] == pytest.approx(setup.validation_loss(average), rel=1e-5)


def test_a_state_starts_at_the_first_snapshot(task):
    setup = RunSetup(small(), task, 0)
    snapshots = {step: torch.full((setup.layout.size,), float(step)) for step in range(0, 25, 4)}
    state = state_at(setup, get_optimizer_model("Line", history=9), snapshots, 16)
    assert state.times.tolist() == [0, 4, 8, 12, 16]
    assert state.t_end == 24
    assert state_at(setup, get_optimizer_model("Hold"), snapshots, 16).times.tolist() == [16]


def test_each_control_corrupts_one_part_of_the_state():
    state = State(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([10.0, 20.0, 30.0]), 40.0)
    other = State(torch.tensor([[5.0], [7.0], [8.0]]), state.times, 40.0)
    corrupted = {name: corrupt(state, other) for name, corrupt in CONTROLS.items()}
    assert corrupted["zero history"].history.flatten().tolist() == [0, 0, 0]
    assert corrupted["shuffled history"].history.flatten().tolist() == [2, 1, 4]
    assert corrupted["another run's history"].history.flatten().tolist() == [1, 3, 4]
    assert corrupted["wrong times"].times.tolist() == [28, 29, 30]
    assert all(s.history[-1] == 4 for name, s in corrupted.items() if name != "zero history")


def test_controls_that_change_nothing_are_left_out():
    comparison = compare(small(seeds=1), get_optimizer_model("Hold"), SilentTracker())
    assert comparison.controls == ["zero history"]


def test_batchnorm_statistics_follow_the_weights(task):
    config = small(
        target_model="ResNet18", target_options={}, steps=2, every=1, stride=1, evaluate_every=1, batch_size=8
    )
    setup = RunSetup(config, task, 0)
    model = setup.build()
    weights = setup.layout.read(model)
    before = setup.validation_loss(weights)
    setup.validation_loss(weights * 1.5)
    assert setup.validation_loss(weights) == before


def test_each_random_seed_draws_its_own_learning_rate_from_a_range(task):
    rates = [RunSetup(small(lr="1e-3:1e-2"), task, seed).lr for seed in (0, 1, 0)]
    assert rates[0] == rates[2] != rates[1]
    assert all(1e-3 <= rate <= 1e-2 for rate in rates)


def test_names_of_candidates():
    assert contender_name(get_optimizer_model("PerceiverOptimizer")) == "perceiver"
    assert contender_name(get_optimizer_model("Hold")) == "judged hold"


def test_a_base_optimizer_that_diverges_alone_is_an_error():
    with pytest.raises(Diverged, match=r"SGD alone diverges with random seed .* at lr 1e\+30.*take a lower lr"):
        compare(small(base_optimizer="SGD", lr=1e30), get_optimizer_model("Hold"), SilentTracker())


def test_a_contender_that_diverges_leaves_an_empty_curve_and_a_warning(task, caplog):
    setup = RunSetup(small(base_optimizer="SGD", lr=1e30), task, 0)
    curve = train_contender(setup, "learned", get_optimizer_model("Hold"))
    assert curve.steps == [4, 6, 8, 12, 16, 18, 20, 24]
    assert all(map(math.isnan, curve.losses))
    assert "learned, random seed 0: the training loss is" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": 10}, "expected a multiple of stride"),
        ({"steps": 4}, "no nowcast would take place"),
        ({"evaluate_every": 13}, "take evaluate_every=12 or less"),
        ({"lr": -1}, "lr is"),
        ({"seeds": 0}, "seeds is 0"),
    ],
)
def test_impossible_evaluations_are_rejected(changes, message):
    with pytest.raises(InvalidConfig, match=message):
        small(**changes)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"task": "digitz"}, UnknownName),
        ({"target_model": "MPL"}, UnknownName),
        ({"base_optimizer": "Adamm"}, UnknownName),
        ({"base_optimizer_options": {"beta": 1}}, InvalidConfig),
        ({"data_dir": "somewhere"}, InvalidConfig),
    ],
)
def test_unknown_names_are_rejected_before_training(changes, error):
    with pytest.raises(error):
        compare(small(**changes), get_optimizer_model("Hold"), SilentTracker())


def test_a_result_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"result\.json"):
        compare(small(seeds=1, output=tmp_path / "file" / "result.json"), get_optimizer_model("Hold"), SilentTracker())
