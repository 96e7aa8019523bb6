"""A run is trained once; a damaged entry of the cache is trained again."""

import logging
import math
import sys
from dataclasses import replace

import pytest
import torch

from metaopt.core.tracker import SilentTracker
from metaopt.evaluation import code_digest as code_digest_module
from metaopt.evaluation import runner
from metaopt.evaluation.baselines import BUDGET_BASELINES, TRAINED_BASELINES, BudgetBaseline
from metaopt.evaluation.cache import PairedRun, RunCache
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.results import Curve, Point
from metaopt.evaluation.runner import PairedEvaluation
from metaopt.evaluation.schedules import linear_decay
from metaopt.generative import get_optimizer_model
from metaopt.nowcast.policy import NowcastEvent
from metaopt.tasks import load_task
from metaopt.weights.files import read_tensors, write_tensors
from metaopt.workflows.evaluate_optimizer import compare


@pytest.fixture
def trained(monkeypatch):
    """Names of the contenders that were trained."""
    names, train = [], runner.train_contender

    def recorded(setup, name, *rest, **more):
        names.append(name)
        return train(setup, name, *rest, **more)

    monkeypatch.setattr(runner, "train_contender", recorded)
    return names


@pytest.fixture
def case(tmp_path):
    def run(candidate="Hold", champion=None, candidate_options=None, **changes):
        options = {
            "target_model": "MLP",
            "target_options": {"widths": [4]},
            "steps": 16,
            "every": 8,
            "stride": 4,
            "evaluate_every": 4,
            "seeds": 1,
            "lr": 0.01,
            "cache_dir": str(tmp_path / "cache"),
        }
        config = EvaluateConfig.from_mapping({**options, **changes})
        other = None if champion is None else get_optimizer_model(champion)
        return compare(config, get_optimizer_model(candidate, **(candidate_options or {})), SilentTracker(), other)

    return run


def plain(comparison):
    return [(c.contender, c.seed, c.losses, c.events) for c in comparison.curves], comparison.predictions


def test_the_same_case_is_read_from_the_cache(case, trained):
    first = case()
    assert trained == ["hold", "hold", "line", "average", "slopes", "judged hold"]  # the second one is for the controls
    assert not any(curve.cached for curve in first.curves)
    again = case()
    assert len(trained) == 6
    assert all(curve.cached for curve in again.curves)
    assert plain(first) == plain(again)


def test_another_candidate_reuses_the_baselines(case, trained):
    case()
    trained.clear()
    case("Line", champion="Hold", candidate_options={"history": 2})
    assert trained == ["judged line"]  # the champion was trained as "judged hold"


def test_an_optimizer_that_predicts_averages_is_measured_by_its_average(case):
    options = {"history": 2, "averaging": 0.9}
    averaged = case("Line", candidate_options=options)
    weights, average = (averaged.curves_of(name)[0] for name in ("judged line without EMA", "judged line"))
    assert average.events
    assert not weights.events
    assert average.losses != weights.losses
    unaveraged = case("Line", candidate_options={"history": 2})
    of_averages, of_weights = (each.predictions_of("judged line")[0] for each in (averaged, unaveraged))
    assert of_averages.loss_before != of_weights.loss_before


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_slopes_are_fitted_to_the_snapshots_of_the_candidate(case, averaging):
    comparison = case("Slopes", candidate_options={"averaging": averaging})
    for baseline, same in zip(comparison.curves_of("slopes"), comparison.curves_of("judged slopes"), strict=True):
        assert baseline.losses == same.losses


def test_several_horizons_are_proposed(case):
    several = case("Line", candidate_options={"averaging": 0.9}, horizons=[4, 8])
    assert {event.horizon for curve in several.curves_of("judged line") for event in curve.events} <= {4, 8}


def test_the_least_cosine_decides_whether_weights_follow(case):
    options = {"candidate_options": {"averaging": 0.9}, "steps": 64}
    always, never = (case("Line", min_cosine=cosine, **options).curves_of("judged line") for cosine in (-1, 1))
    assert any(event.followed for curve in always for event in curve.events)
    assert not any(event.followed for curve in never for event in curve.events)


@pytest.mark.parametrize("change", [{"lr": 0.02}, {"steps": 24}, {"seed": 3}, {"target_options": {"widths": [5]}}])
def test_a_changed_run_is_trained_again(case, trained, change):
    case()
    trained.clear()
    case(**change)
    assert "hold" in trained


def test_settings_of_nowcasts_do_not_change_hold(case, trained):
    case()
    trained.clear()
    case(guard_batch=64)
    assert trained == ["line", "average", "slopes", "judged hold"]


def test_hold_is_reused_if_it_is_measured_at_the_same_steps(case, trained):
    case(every=8, evaluate_every=8, stride=4)
    trained.clear()
    case(every=4, evaluate_every=8, stride=4)
    assert "hold" not in trained


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


RUN = PairedRun(
    (
        Curve("hold", 3, (Point(4, 1.5, 0.25), Point(8, math.nan, math.nan)), rate="0.01"),
        Curve("line", 3, (Point(4, 1.25, 0.25), Point(8, math.inf, 0.5)), (NowcastEvent(4, 1.5, None, True, 8),)),
    ),
    {4: torch.arange(3.0), 8: torch.ones(3)},
)
FACTS = {"contender": "hold", "random seed": 3}


@pytest.fixture
def entry(tmp_path):
    """The file of one entry."""
    RunCache(tmp_path, {}).get_or_train(FACTS, lambda: RUN)
    (path,) = tmp_path.iterdir()
    return path


def read_again(entry, facts=FACTS):
    """The run of the cache, and whether it was trained again."""
    trained = []
    run = RunCache(entry.parent, {}).get_or_train(facts, lambda: trained.append(1) or RUN)
    return run, bool(trained)


def test_an_entry_keeps_every_number(entry):
    run, trained = read_again(entry)
    assert not trained
    assert repr(run.curves) == repr(tuple(replace(curve, cached=True) for curve in RUN.curves))  # NaN != NaN
    assert {step: weights.tolist() for step, weights in run.snapshots.items()} == {4: [0, 1, 2], 8: [1, 1, 1]}


def test_every_flipped_bit_is_noticed(entry):
    data = entry.read_bytes()
    for bit in range(0, 8 * len(data), 211):
        entry.write_bytes(flipped(data, bit))
        assert read_again(entry)[1], bit
    assert entry.read_bytes() == data  # it was made anew


def test_an_entry_in_the_place_of_another_is_noticed(entry, caplog):
    other = {**FACTS, "random seed": 4}
    read_again(entry, other)
    (place,) = set(entry.parent.iterdir()) - {entry}
    place.write_bytes(entry.read_bytes())
    assert read_again(entry, other)[1]
    assert "entry of another run" in caplog.text


@pytest.mark.parametrize(
    "curves", [[], None, 3, ["hold"], [{"contender": "hold"}], [[["points", [[4, float("nan"), 0.1]]]]]]
)
def test_a_sealed_entry_without_curves_is_trained_again(entry, curves, caplog):
    tensors, facts = read_tensors(entry, "run")
    write_tensors(entry, tensors, "run", {**facts, "curves": curves})
    assert read_again(entry)[1]
    assert "cannot be used" in caplog.text


def test_a_damaged_entry_is_shown_in_short(entry, caplog):
    tensors, facts = read_tensors(entry, "run")
    facts["curves"][0]["points"][0][1] = "x" * 10**5
    write_tensors(entry, tensors, "run", facts)
    assert read_again(entry)[1]
    assert "is no number" in caplog.text
    assert len(caplog.text) < 2000


@pytest.mark.parametrize("loss", [math.nan, "1.5", None, True, [1.5], 1e999])
def test_a_loss_that_is_no_number_is_refused(entry, loss):
    tensors, facts = read_tensors(entry, "run")
    facts["curves"][0]["points"][0][1] = loss
    write_tensors(entry, tensors, "run", facts)
    assert read_again(entry)[1]


def test_damaged_entries_are_trained_again(case, trained, tmp_path, caplog):
    first = case()
    trained.clear()
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert plain(case()) == plain(first)
    assert len(trained) == 6
    assert "cannot be used" in caplog.text


def test_a_network_whose_code_changed_is_trained_again(case, trained, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "from torch import nn\n\ndef build(in_features, classes):\n    return nn.Sequential(nn.Flatten(), {})\n"
    for layer in ("nn.Linear(in_features, classes)", "nn.Linear(in_features, classes), nn.Tanh()"):
        (tmp_path / "edited.py").write_text(code.format(layer))
        sys.modules.pop("edited", None)
        code_digest_module._file_digest.cache_clear()  # as in another process
        trained.clear()
        case(target_model="edited:build", target_options={}, controls=False, baselines="none")
        assert trained == ["hold", "judged hold"]


class Edited(torch.optim.SGD):
    """Another code with the same options."""


@pytest.fixture
def curves_of(tmp_path):
    """The curves of one contender, each with whether it was read from the cache."""
    small = {"steps": 16, "every": 8, "stride": 4, "evaluate_every": 4, "seeds": 1, "lr": 0.01, "baselines": "all"}
    network = {"target_model": "MLP", "target_options": {"widths": [4]}}
    config = EvaluateConfig.from_mapping({**small, **network, "cache_dir": str(tmp_path / "cache")})

    def run(contender):
        learned = {"judged hold": get_optimizer_model("Hold")}
        evaluation = PairedEvaluation(config, load_task("digits"), learned, {contender: ["0.01"]})
        return {curve.contender: curve.cached for curve in evaluation.compare().curves}

    return run


def test_a_training_rule_is_told_by_its_code_and_its_options(curves_of, monkeypatch):
    def sgd(kind, momentum):
        return lambda setup, model: kind(model.parameters(), lr=setup.lr, momentum=momentum)

    for rule in (sgd(torch.optim.SGD, 0.5), sgd(torch.optim.SGD, 0.6), sgd(Edited, 0.6)):
        monkeypatch.setitem(TRAINED_BASELINES, "Muon", rule)
        assert curves_of("Muon") == {"Muon": False}
        assert curves_of("Muon") == {"Muon": True}


def test_a_baseline_of_budgets_is_told_by_its_code(curves_of, monkeypatch):
    def edited(setup, bar):
        return linear_decay(setup, bar)

    for training in (linear_decay, edited):
        monkeypatch.setitem(BUDGET_BASELINES, "linear decay", BudgetBaseline(training, 1.3))
        assert curves_of("linear decay") == {"linear decay": False}
        assert curves_of("linear decay") == {"linear decay": True}


def test_a_cache_that_cannot_be_written_does_not_stop_the_evaluation(case, trained, tmp_path, caplog):
    (tmp_path / "cache").write_text("")
    assert case().curves
    assert "This evaluation continues" in caplog.text


def test_without_a_folder_nothing_is_stored(case, trained, tmp_path):
    case(cache_dir=None)
    assert not (tmp_path / "cache").exists()
