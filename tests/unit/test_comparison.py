"""A comparison of a user's own training: the trial, checks of twins, stored trainings, and bad training functions."""

import itertools
import json
import logging
import math
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import metaopt
from metaopt.comparison.average import AveragesOfTraining
from metaopt.comparison.checks import check_seeds_differ, doubts_about_twins
from metaopt.comparison.config import CompareConfig
from metaopt.comparison.judgement import Word
from metaopt.comparison.messages import AdviceOnce
from metaopt.comparison.results import Arm, Event, Failure, Point, TrainingComparison, TrialResult
from metaopt.comparison.runner import ComparisonRunner
from metaopt.comparison.running import TrialSettings, as_metrics, run_here, run_in_process
from metaopt.comparison.store import TrialStore
from metaopt.comparison.summary import ComparisonSummary, comparison_table
from metaopt.comparison.training import load_training, training_of
from metaopt.comparison.trial import Trial
from metaopt.core.control import StopRequested, control
from metaopt.core.errors import FileFormatError, InvalidConfig, LayoutMismatch, UnknownName, UntrustedCode
from metaopt.operations.resuming import resumed
from metaopt.reporting.charts.training_pairs import training_charts
from metaopt.reporting.training_report import comparison_metrics, training_html, training_markdown, training_table

INPUTS = torch.linspace(-1, 1, 64).reshape(16, 4)
TARGETS = INPUTS.sum(1, keepdim=True).sin()
HOLD = {"every": 4, "stride": 2, "horizons": 4, "max_overhead": None}


def fitted(trial, steps=12, forecaster=None, **arguments):
    """A tiny training; gives the network, and its loss."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    forecaster = forecaster or metaopt.get_optimizer_model("Line")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    optimizer = trial.optimizer(optimizer, model, forecaster, **{**HOLD, **arguments})

    def loss():
        return nn.functional.mse_loss(model(INPUTS), TARGETS)

    for step in range(steps):
        rows = torch.randperm(16)[:8]
        optimizer.zero_grad()
        nn.functional.mse_loss(model(INPUTS[rows]), TARGETS[rows]).backward()
        optimizer.step()
        trial.report(step + 1, loss())
    return model, loss


def train(trial):
    return fitted(trial)[1]


def run(function, config=None, **settings):
    config = config or CompareConfig(train="x", cache_dir=None, **settings)
    return ComparisonRunner(training_of(function), config).run()


def trial_result(arm=Arm.PLAIN, seed=0, **values):
    given = {"steps": 10, "seconds": 1.0, "metrics": {"loss": 1.0}, "digests": {0: f"a{seed}", 1: f"b{seed}"}}
    return TrialResult(arm, seed, **{**given, **values})


@pytest.fixture(scope="module")
def compared():
    return run(train)


def test_twins_have_equal_weights_until_the_first_nowcast_and_other_ones_at_the_end(compared):
    plain, nowcast = compared.of(Arm.PLAIN), compared.of(Arm.NOWCAST)
    assert {*plain} == {*nowcast} == {0, 1, 2}
    for seed in (0, 1, 2):
        assert [event.step for event in nowcast[seed].events] == [4, 8, 12]
        assert {step: plain[seed].digests[step] for step in (0, 1, 2, 4)} == {
            step: nowcast[seed].digests[step] for step in (0, 1, 2, 4)
        }
        assert plain[seed].digests[8] != nowcast[seed].digests[8]
        assert plain[seed].steps == nowcast[seed].steps == 12
        assert plain[seed].seconds > 0
    assert len({result.digests[0] for result in plain.values()}) == 3
    assert compared.doubts == []


def test_the_plain_training_is_the_one_without_metaopt(compared):
    from metaopt.core.rng import seed_all

    seed_all(1)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer, average = torch.optim.Adam(model.parameters(), lr=0.05), None
    for step in range(12):
        rows = torch.randperm(16)[:8]
        optimizer.zero_grad()
        nn.functional.mse_loss(model(INPUTS[rows]), TARGETS[rows]).backward()
        optimizer.step()
        weights = nn.utils.parameters_to_vector(model.parameters()).detach()
        average = weights if average is None else average + (weights - average) * 0.1 / (1 - 0.9 ** (step + 1))
    result = compared.of(Arm.PLAIN)[1]
    assert result.metrics["metric"] == nn.functional.mse_loss(model(INPUTS), TARGETS).item()
    nn.utils.vector_to_parameters(average, model.parameters())
    expected = nn.functional.mse_loss(model(INPUTS), TARGETS).item()
    assert result.averaged["EMA 0.9"]["metric"] == pytest.approx(expected, rel=1e-4)


def test_the_overhead_is_that_of_the_wrapper():
    wrappers = []

    def train(trial):
        _, loss = fitted(trial)
        wrappers.append(trial.record.optimizer)
        return loss

    found = run(train, seeds=1)
    (wrapper,) = (each for each in wrappers if isinstance(each, metaopt.Nowcast))
    overhead = found.of(Arm.NOWCAST)[0].overhead
    assert overhead == wrapper.overhead > 0
    assert f"{100 * overhead:.3g} % of the time of the steps" in wrapper.summary()
    assert found.of(Arm.PLAIN)[0].overhead is None
    summary = ComparisonSummary(replace(found, results=[replace(each, overhead=None) for each in found.results]))
    assert "overhead" not in comparison_metrics(summary)


def test_a_comparison_changes_no_random_numbers_around_it():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run(train, seeds=1)
    assert torch.equal(torch.rand(2), expected)


def test_a_forecaster_that_does_nothing_makes_no_difference():
    found = run(lambda trial: fitted(trial, forecaster=metaopt.get_optimizer_model("Hold"))[1])
    summary = ComparisonSummary(found)
    assert summary.verdict.word is Word.NO_DIFFERENCE
    assert summary.verdict.difference == (0, 0, 0)


def test_rows_verdicts_and_reports_of_a_comparison(compared):
    summary = ComparisonSummary(compared)
    assert [row.name for row in summary.rows] == ["plain", "EMA 0.9", "EMA 0.98", "EMA 0.99", "nowcast"]
    heads, rows = comparison_table(summary)
    assert heads[:4] == ["contender", "steps", "seconds", "overhead"]
    shown = {row[0]: row[3] for row in rows}
    assert shown.pop("nowcast").endswith(" %")
    assert {*shown.values()} == {"–"}
    assert comparison_metrics(summary)["overhead"] == pytest.approx(
        sum(each.overhead for each in compared.of(Arm.NOWCAST).values()) / 3
    )
    assert heads[-3:] == ["seed 0", "seed 1", "seed 2"]
    assert all(len(row) == len(heads) for row in rows)
    assert comparison_table(summary, most=2)[0] == heads[:-3]
    assert {"verdict", "seconds", f"against {summary.best_average}", "to equal loss", "nowcasts"} == {*summary.lines}
    assert summary.lines["nowcasts"].startswith("9 took place")
    assert json.loads(json.dumps(summary.to_mapping()))["contenders"][0]["values"].keys() == {"0", "1", "2"}
    assert {"difference", "difference_low", "difference_seconds"} <= comparison_metrics(summary).keys()
    assert "plain" in training_table(summary)
    assert "## By random seed" in training_markdown(summary)
    charts = training_charts(summary)
    assert [chart.name for chart in charts] == ["differences", "loss_curves"]
    assert training_html(summary, charts).count("<svg") == 2


def test_results_are_stored_and_read(tmp_path, compared, caplog):
    config = CompareConfig(train="x", cache_dir=tmp_path)
    store = TrialStore(training_of(train), config)
    for result in compared.results:
        store.write(result)
    assert [store.read(result.arm, result.seed) for result in compared.results] == list(compared.results)
    assert store.read(Arm.PLAIN, 9) is None
    again = CompareConfig(train="x", cache_dir=tmp_path, overwrite=True)
    replacing = TrialStore(training_of(train), replace(again, seed=1, seeds=1))
    replacing.clear()
    assert [replacing.read(Arm.PLAIN, seed) is None for seed in (0, 1, 2)] == [False, True, False]
    store.clear()
    assert store.read(Arm.PLAIN, 0) is not None
    with caplog.at_level(logging.INFO):
        other = TrialStore(training_of(train), CompareConfig(train="x", cache_dir=tmp_path, ema=(0.5,)))
    assert other.read(Arm.PLAIN, 0) is None
    assert "1 other version" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "changed", "other", "no result", "empty"])
def test_a_damaged_result_is_run_again(tmp_path, caplog, damage):
    from metaopt.trajectories.sealed_json import read_sealed, write_sealed

    store = TrialStore(training_of(train), CompareConfig(train="x", cache_dir=tmp_path))
    store.write(trial_result())
    path = store.path(Arm.PLAIN, 0)
    text = path.read_text()
    if damage == "cut":
        path.write_text(text[:-20])
    elif damage == "changed":
        path.write_text(text.replace('"steps": 10', '"steps": 11'))
    elif damage == "other":
        path = path.rename(store.path(Arm.PLAIN, 1))
    elif damage == "no result":
        write_sealed(path, {**read_sealed(path), "result": {"arm": "plain", "metrics": 3}})
    else:
        path.write_text("")
    assert store.read(Arm.PLAIN, 1 if damage == "other" else 0) is None
    assert "runs again" in caplog.text


def test_numbers_that_are_not_finite_are_stored():
    result = trial_result(
        metrics={"loss": math.nan},
        averaged={"EMA 0.9": {"loss": -math.inf}},
        curve=(Point(1, math.inf, 0.1),),
        events=(Event(4, True, False),),
        reason="none",
        overhead=0.25,
    )
    text = json.dumps(result.to_mapping(), allow_nan=False)
    restored = TrialResult.from_mapping(json.loads(text))
    assert math.isnan(restored.metrics["loss"])
    assert (restored.averaged, restored.curve, restored.events) == (result.averaged, result.curve, result.events)
    assert restored.digests == result.digests
    assert restored.overhead == 0.25
    with pytest.raises(FileFormatError):
        TrialResult.from_mapping({"arm": "other"})


def counting(calls):
    """A training function that notes the arm and the random seed of each training."""

    def counted(trial):
        calls.append((str(trial.arm), trial.seed))
        return fitted(trial)[1]

    return counted


def test_only_trainings_that_are_missing_run(tmp_path, monkeypatch):
    calls = []
    counted = counting(calls)
    config = CompareConfig(train="x", cache_dir=tmp_path, seeds=2)
    first = run(counted, config)
    assert calls == [("nowcast", 0), ("plain", 0), ("plain", 1), ("nowcast", 1)]
    next(tmp_path.glob("*/plain_seed_1.json")).unlink()
    again = run(counted, config)
    assert calls[4:] == [("plain", 1)]
    assert [each.metrics for each in again.results] == [each.metrics for each in first.results]
    run(counted, CompareConfig(train="x", cache_dir=tmp_path, seeds=3))
    assert calls[5:] == [("nowcast", 2), ("plain", 2)]


def test_a_comparison_that_is_asked_to_stop_does_so_after_its_training(tmp_path, monkeypatch):
    def stopping(trial):
        monkeypatch.setattr(control, "stop_requested", True)
        return fitted(trial)[1]

    config = CompareConfig(train="x", cache_dir=tmp_path, overwrite=True)
    with pytest.raises(StopRequested):
        run(stopping, config)
    assert [path.name for path in tmp_path.glob("*/*.json")] == ["nowcast_seed_0.json"]
    assert resumed("compare", config) == replace(config, overwrite=False)


def test_another_forecaster_trains_no_plain_run_again(tmp_path):
    calls = []
    counted = counting(calls)
    config = CompareConfig(train="x", cache_dir=tmp_path, seeds=2)
    first = run(counted, config)
    assert first.doubts == []
    calls.clear()
    second = run(counted, replace(config, forecaster="builtin-fast", nowcast={"every": 6}))
    assert calls == [("nowcast", 0), ("nowcast", 1)]
    assert second.of(Arm.PLAIN) == first.of(Arm.PLAIN)
    assert second.of(Arm.NOWCAST)[0].events != first.of(Arm.NOWCAST)[0].events
    (doubt,) = second.doubts
    assert "2 of 2 pairs" in doubt
    assert "seconds are not compared" in doubt
    summary = ComparisonSummary(second)
    assert summary.seconds.pairs == 0
    assert summary.lines["seconds"] == "no verdict: the twins ran at different times"
    assert "of the seconds" not in summary.lines["to equal loss"]
    assert "difference_seconds" not in comparison_metrics(summary)
    assert "seconds_to_equal_loss" not in comparison_metrics(summary)
    longer = ComparisonSummary(run(counted, replace(config, seeds=3, forecaster="builtin-fast", nowcast={"every": 6})))
    assert longer.seconds.pairs == 1
    assert "--overwrite true" in doubt
    calls.clear()
    assert run(counted, config).doubts == []
    assert calls == []
    run(counted, replace(config, ema=(0.5,)))
    assert calls == [("plain", 0), ("plain", 1)]


def test_a_stored_training_is_checked_to_be_the_twin(tmp_path):
    shift = [0.0]

    def drifting(trial):
        torch.rand(int(shift[0]))
        return fitted(trial)[1]

    config = CompareConfig(train="x", cache_dir=tmp_path, seeds=2)
    run(drifting, config)
    shift[0] = 3.0
    different, apart = run(drifting, replace(config, nowcast={"every": 6})).doubts
    assert "different initial weights" in different
    assert "--overwrite true" in different
    assert "one training was stored" in apart


def refused(function, *words, seeds=2, **settings):
    with pytest.raises(InvalidConfig) as caught:
        run(function, seeds=seeds, **settings)
    for word in words:
        assert word in str(caught.value)


def ignoring(trial):
    model = nn.Linear(4, 1)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return 1.0


def never_stepping(trial):
    model = nn.Linear(4, 1)
    trial.optimizer(torch.optim.SGD(model.parameters(), lr=0.1), model)
    return 1.0


def stepping_the_base(trial):
    model = nn.Linear(4, 1)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    trial.optimizer(base, model)
    base.step()
    return 1.0


def seeding(trial):
    torch.manual_seed(0)
    return fitted(trial)[1]


def twice(trial):
    fitted(trial)
    fitted(trial)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (ignoring, ["ignoring did not call trial.optimizer", "optimizer = trial.optimizer(optimizer, model)"]),
        (never_stepping, ["never stepped the optimizer that trial.optimizer returned"]),
        (stepping_the_base, ["stepped the base optimizer", "use the returned one"]),
        (seeding, ["same way with the random seeds 0 and 1", "torch.manual_seed(0)"]),
        (twice, ["trial.optimizer was called twice"]),
        (lambda trial: fitted(trial) and None, ["returned None", "Is a return missing"]),
        (lambda trial: fitted(trial) and (lambda: None), ["the evaluation of ", "returned None"]),
        (lambda trial: fitted(trial) and "good", ["returned 'good'", "expected a number"]),
        (lambda trial: fitted(trial) and {}, ["returned {}"]),
        (lambda trial: fitted(trial) and {"loss": [1, 2]}, ["'loss' = [1, 2]"]),
        (lambda trial: fitted(trial) and {"a": 1, "b": 2}, ["2 metrics: a, b", "--metric"]),
        (lambda trial: fitted(trial) and {str(trial.arm): 1.0}, ["returned nowcast", "but plain"]),
        (lambda trial: fitted(trial, gard=1), ["Nowcast", "gard"]),
    ],
)
def test_a_function_that_does_not_use_its_trial_is_refused(function, words):
    refused(function, *words)


def test_a_metric_that_is_not_returned_is_refused():
    refused(lambda trial: fitted(trial) and {"a": 1, "b": 2}, "metric is 'c'", "a, b", metric="c")


def test_weights_that_the_base_optimizer_does_not_move_are_refused_in_both_arms():
    def partial(trial):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
        trial.optimizer(torch.optim.SGD(model[0].parameters(), lr=0.1), model)

    for arm in Arm:
        with pytest.raises(LayoutMismatch):
            run_here(training_of(partial), TrialSettings(arm, 0, None, {}, ()))


@pytest.mark.parametrize(
    "returned", [0.5, 1, torch.tensor(0.5), torch.tensor([[0.5]]), np.float32(0.5), np.array([0.5]), {"x": 0.5}]
)
def test_values_that_are_numbers(returned):
    (value,) = as_metrics("train", returned).values()
    assert value in (0.5, 1)


@pytest.mark.parametrize("returned", [True, torch.ones(2), np.ones(3), "1", [1.0], object(), {"x": True}])
def test_values_that_are_no_numbers(returned):
    with pytest.raises(InvalidConfig, match="expected a number"):
        as_metrics("train", returned)


def test_a_training_that_raises_is_told_and_the_others_are_kept(tmp_path, caplog):
    broken = [True]

    def sometimes(trial):
        if broken and trial.seed == 1 and trial.arm == "nowcast":
            raise RuntimeError("disk is full")
        return fitted(trial)[1]

    config = CompareConfig(train="x", cache_dir=tmp_path)
    found = run(sometimes, config)
    ((arm, seed, reason),) = found.failures
    assert (arm, seed) == (Arm.NOWCAST, 1)
    assert "disk is full" in reason
    assert "test_comparison.py, line " in reason
    assert found.paired_seeds == [0, 2]
    summary = ComparisonSummary(found)
    assert summary.verdict.pairs == 2
    assert "same command runs it again" in summary.notes[0]
    broken.clear()
    assert not run(sometimes, config).failures


def test_a_comparison_ends_if_both_trainings_of_the_first_random_seed_raise():
    def broken(trial):
        raise RuntimeError("no data")

    refused(broken, "both trainings of random seed 0 failed", "no data", "train(metaopt.Trial())")


def test_a_training_that_ends_itself_is_a_failure():
    def ending(trial):
        raise SystemExit(3)

    found = run_here(training_of(ending), TrialSettings(Arm.PLAIN, 0, None, {}, ()))
    assert isinstance(found, Failure)


def test_ctrl_c_is_no_failure():
    def interrupted(trial):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted)


def test_a_training_that_ends_with_nan_harms():
    found = run(lambda trial: math.nan if fitted(trial) and (trial.arm, trial.seed) == ("nowcast", 1) else 1.0)
    verdict = ComparisonSummary(found).verdict
    assert verdict.sentence == "harms: 1 training ended without a finite metric"
    assert any("1 only with nowcasts" in hint for hint in verdict.hints)


def test_numbers_that_are_not_finite_are_shown():
    found = run(lambda trial: math.nan if fitted(trial) and trial.seed else 1.0, seeds=2)
    summary = ComparisonSummary(found)
    assert comparison_table(summary)[1][0][-2:] == ["1", "nan"]
    assert "0 only with nowcasts, 0 only without, 1 in both trainings" in training_table(summary)


def test_a_training_that_is_not_deterministic_is_told():
    noise = torch.Generator().manual_seed(0)

    def noisy(trial):
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = trial.optimizer(optimizer, model, metaopt.get_optimizer_model("Hold"), **HOLD)
        for _ in range(8):
            optimizer.zero_grad()
            (model(INPUTS) - TARGETS + torch.randn(1, generator=noise)).square().mean().backward()
            optimizer.step()
        return nn.functional.mse_loss(model(INPUTS), TARGETS)

    (doubt,) = run(noisy).doubts
    assert "not deterministic" in doubt
    assert "3 of 3 pairs" in doubt
    assert "weights after 1 step" in doubt
    assert "more random seeds" in doubt


def test_doubts_name_the_initial_weights_steps_and_trainings_without_nowcasts():
    plain = trial_result(digests={0: "a", 1: "b"})
    nowcast = trial_result(Arm.NOWCAST, steps=11, digests={0: "x", 1: "y"})
    doubts = doubts_about_twins([plain, nowcast])
    assert "different initial weights" in doubts[0]
    assert "different numbers of steps" in doubts[1]
    assert "No nowcast took place in 1 of 1 training" in doubts[2]
    assert '--nowcast "max_overhead=None"' in doubts[2]
    late = trial_result(Arm.NOWCAST, digests={0: "a", 1: "b", 2: "y"}, events=(Event(1, True, True),))
    assert doubts_about_twins([trial_result(digests={0: "a", 1: "b", 2: "c"}), late]) == []


def test_equal_initial_weights_of_a_fine_tuning_are_no_error():
    check_seeds_differ(
        "train", [trial_result(seed=0, digests={0: "a", 1: "b"}), trial_result(seed=1, digests={0: "a", 1: "c"})]
    )


def test_a_number_gives_no_average_and_says_so():
    found = run(lambda trial: fitted(trial)[1]().item(), seeds=2, metric="loss")
    summary = ComparisonSummary(found)
    assert [row.name for row in summary.rows] == ["plain", "nowcast"]
    assert summary.against_average is None
    assert any("return a function" in note for note in summary.notes)
    assert found.metric == "loss"


def test_statistics_of_batchnorm_are_averaged_and_restored():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    averages = AveragesOfTraining(model, list(model.parameters()), (0.5,))
    means = []
    for number in (1.0, 3.0):
        model[1].running_mean.fill_(number)
        averages.update()
        means.append(number)
    with averages.in_model(0.5):
        assert model[1].running_mean.tolist() == pytest.approx([(0.5 * 1 + 3) / 1.5] * 2)
    assert model[1].running_mean.tolist() == [3.0, 3.0]


def test_a_trial_outside_of_a_comparison_uses_nowcasts():
    trial = Trial(seed=4)
    assert repr(trial) == "Trial(seed=4, arm='nowcast')"
    fitted(trial)
    assert len(trial.record.events) == 3
    with pytest.raises(InvalidConfig, match="expected one of plain, nowcast"):
        Trial(arm="both")
    with pytest.raises(InvalidConfig, match="expected two numbers"):
        trial.report(1, "low")


@pytest.mark.parametrize(("sign", "kind"), [(1, "raw"), (-1, "averaged")])
def test_the_weights_that_the_guard_prefers_have_a_row(sign, kind):
    calls = itertools.count(1)

    def measured(model, batch):  # the last weights are measured before their average
        return 100.0 + sign * next(calls)

    guard = metaopt.guard_from((INPUTS, TARGETS), compute_loss=measured)
    found = run(lambda trial: fitted(trial, ema=0.5, guard=guard)[1], seeds=2)
    summary = ComparisonSummary(found)
    rows = {row.name: row for row in summary.rows}
    assert [*rows][-3:] == ["nowcast", "average of nowcast", "best weights of nowcast"]
    expected = rows["nowcast" if kind == "raw" else "average of nowcast"].values
    assert rows["best weights of nowcast"].values == expected
    assert rows["nowcast"].values != rows["average of nowcast"].values
    assert {each.kept for each in found.of(Arm.NOWCAST).values()} == {kind}
    assert {each.kept for each in found.of(Arm.PLAIN).values()} == {None}
    chosen = 2 if kind == "averaged" else 0
    assert summary.lines["best weights"] == f"the guard prefers the average in {chosen} of 2 trainings"
    assert summary.verdict == rows["nowcast"].against_plain


def test_without_a_guard_there_are_no_best_weights():
    summary = ComparisonSummary(run(lambda trial: fitted(trial, ema=0.5)[1], seeds=2))
    assert [row.name for row in summary.rows][-2:] == ["nowcast", "average of nowcast"]
    assert "best weights" not in summary.lines


def test_the_advice_of_nowcast_is_given_once(caplog):
    run(train, seeds=2)
    assert caplog.text.count("Nowcast has no guard") == 1
    run(train, seeds=1)
    assert caplog.text.count("Nowcast has no guard") == 2


def test_arguments_of_the_command_replace_those_of_the_function():
    found = run(lambda trial: fitted(trial)[1], seeds=1, nowcast={"every": 6}, forecaster="builtin-fast")
    assert [event.step for event in found.of(Arm.NOWCAST)[0].events] == [6, 12]
    assert found.of(Arm.NOWCAST)[0].averaged.keys() == {"average of nowcast"}


def test_a_flag_removes_the_limit_on_the_time_of_nowcasts():
    config = CompareConfig.from_mapping({"train": "x", "nowcast": "max_overhead=None every=6", "seeds": 1})
    assert config.nowcast == {"max_overhead": None, "every": 6}
    limited = {"every": 6, "stride": 2, "horizons": 4}
    found = run(lambda trial: fitted(trial, **limited, max_overhead=1e-9)[1], replace(config, cache_dir=None))
    assert [event.step for event in found.of(Arm.NOWCAST)[0].events] == [6, 12]


@pytest.mark.parametrize("given", [{"evry": 3}, {"guard": 1}, {"model": 2}])
def test_unknown_arguments_of_nowcast_are_refused_at_once(given):
    with pytest.raises(InvalidConfig, match="unknown argument"):
        CompareConfig(nowcast=given)


def test_seconds_leave_out_the_averages(monkeypatch):
    from time import sleep

    update = AveragesOfTraining.update
    monkeypatch.setattr(AveragesOfTraining, "update", lambda self: (sleep(0.2), update(self)))
    found = run_here(training_of(train), TrialSettings(Arm.PLAIN, 0, None, {}, (0.9,)))
    assert found.seconds < 12 * 0.2


# The script of the function


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)  # removes what the import adds

    def write(text, name="some_script.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_script_is_imported_with_its_folder_and_its_own_command_line(script):
    script("VALUE = 3\n", "beside_it.py")
    path = script("import sys, beside_it\nWORDS = sys.argv\ndef train(trial):\n    return beside_it.VALUE\n")
    training = load_training(f"{path}:train")
    assert training.name == "some_script.py:train"
    assert training.folder_name == "some_script-train"
    assert training.function(None) == 3
    assert training.function.__globals__["WORDS"] == [str(path)]
    assert load_training(str(path)).digest == training.digest
    script("VALUE = 4\n", "beside_it.py")
    assert load_training(str(path)).digest != training.digest


def test_a_changed_script_trains_everything_again(script, tmp_path, capsys):
    text = (
        "import torch\n"
        "def train(trial):\n"
        "    print('begins', trial.arm)\n"
        "    model = torch.nn.Linear(4, 1)\n"
        "    trial.optimizer(torch.optim.SGD(model.parameters(), lr=0.1), model, 'builtin-fast').step()\n"
        "    return 1.0\n"
    )
    config = CompareConfig(train="x", cache_dir=tmp_path / "stored", seeds=1)
    begun = []
    for content in (text, text, text.replace("0.1", "0.2")):
        ComparisonRunner(load_training(f"{script(content)}:train"), config).run()
        begun.append(capsys.readouterr().out.splitlines())
    both = ["begins nowcast", "begins plain"]
    assert begun == [both, [], both]


def test_another_process_does_not_give_the_same_advice_again(script, capfd):
    path = script(
        "import torch\n"
        "def train(trial):\n"
        "    model = torch.nn.Linear(4, 1)\n"
        "    trial.optimizer(torch.optim.SGD(model.parameters(), lr=0.1), model, 'builtin-fast').step()\n"
        "    return 1.0\n"
    )
    training, settings, advice = (
        load_training(f"{path}:train"),
        TrialSettings(Arm.NOWCAST, 0, None, {}, ()),
        AdviceOnce(),
    )
    outputs = []
    for _ in range(2):
        assert not isinstance(run_in_process(training, settings, advice), Failure)
        outputs.append(capfd.readouterr().err)
    assert ["Nowcast has no guard" in each for each in outputs] == [True, False]


@pytest.mark.parametrize(
    ("text", "name", "error", "words"),
    [
        (None, "nowhere.py:train", UnknownName, ["no file", "my_script.py:train"]),
        ("def trian(trial): ...", "some_script.py", UnknownName, ["'train'", "trian"]),
        ("1 / 0", "some_script.py", InvalidConfig, ["ZeroDivisionError", "__main__"]),
        ("raise SystemExit(2)", "some_script.py", InvalidConfig, ["SystemExit", "__main__"]),
        ("import sys\nDATA = sys.argv[1]", "some_script.py", InvalidConfig, ["IndexError", "no arguments", "default"]),
        ("def train(trial): ...", "some_script.py:train:x", UnknownName, ["no file", "my_script.py:train"]),
        ("def train(: ...", "some_script.py", InvalidConfig, ["SyntaxError"]),
        ("train = 3", "some_script.py", InvalidConfig, ["is int", "def train(trial)"]),
        ("def train(): ...", "some_script.py", InvalidConfig, ["cannot be called with a trial"]),
        ("def train(a, b): ...", "some_script.py", InvalidConfig, ["cannot be called with a trial"]),
        ("def train(trial): yield", "some_script.py", InvalidConfig, ["generator"]),
        ("class train: ...", "some_script.py", InvalidConfig, ["is type"]),
        (None, "os:system", InvalidConfig, ["written in Python"]),
        (None, "nowhere_at_all:train", UnknownName, ["nowhere_at_all"]),
        (None, "", UnknownName, []),
    ],
)
def test_a_function_that_cannot_be_used_is_refused_before_it_is_called(script, tmp_path, text, name, error, words):
    if text is not None:
        script(text)
    with pytest.raises(error) as caught:
        load_training(str(tmp_path / name) if name.partition(":")[0].endswith(".py") else name)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_script_without_its_ending_is_named(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script("def train(trial): ...", "forgotten_ending.py")
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    with pytest.raises(UnknownName, match=r"give forgotten_ending\.py:train"):
        load_training("forgotten_ending:train")


@pytest.mark.parametrize("reading", ["sys.argv[1]", "argparse.ArgumentParser().parse_args(sys.argv + ['data.csv'])"])
def test_a_function_that_reads_a_command_line_is_told_that_there_is_none(script, reading):
    path = script(f"import argparse, sys\ndef train(trial):\n    return {reading}\n")
    with pytest.raises(InvalidConfig) as caught:
        ComparisonRunner(load_training(f"{path}:train"), CompareConfig(train="x", cache_dir=None)).run()
    assert str(caught.value).count("no arguments") == 1
    assert "give each a default" in str(caught.value)
    assert "some_script.py, line 3" in str(caught.value)


def test_a_function_that_has_no_file_is_compared_without_storing(tmp_path, caplog):
    names: dict = {"fitted": fitted}
    exec("def train(trial):\n    return fitted(trial)[1]\n", names)
    training = training_of(names["train"])
    assert (training.file, training.path, training.digest) == (None, None, None)
    assert TrialStore(training, CompareConfig(train="x", cache_dir=tmp_path)).path(Arm.PLAIN, 0) is None
    assert "are not stored" in caplog.text
    with pytest.raises(InvalidConfig, match="top level"):
        ComparisonRunner(training, CompareConfig(train="x", processes=True))


def test_a_file_names_no_function():
    with pytest.raises(UntrustedCode):
        CompareConfig.from_file_values({"train": "foreign:train"}, "a file", trusted=False)
    assert CompareConfig.from_file_values({"train": "foreign:train"}, "a file", trusted=True).train == "foreign:train"


def test_to_equal_loss_compares_with_the_best_reported_loss():
    def curve(*losses):
        return tuple(Point(step * 10, loss, float(step)) for step, loss in enumerate(losses, start=1))

    results = [
        trial_result(Arm.PLAIN, 0, curve=curve(3, 2, 1, 1.5)),
        trial_result(Arm.NOWCAST, 0, curve=curve(2, 1, 1, 1)),
        trial_result(Arm.PLAIN, 1, curve=curve(3, 2, 1, 0.5)),
        trial_result(Arm.NOWCAST, 1, curve=curve(3, 2, 1, 1)),
    ]
    summary = ComparisonSummary(TrainingComparison("x", "loss", True, 0.5, [0, 1], results))
    found = summary.to_equal_loss
    assert found.steps.mean == found.seconds.mean == pytest.approx(2 / 3)
    assert (found.reached, found.pairs) == (1, 2)
    assert "1 never reached it" in summary.lines["to equal loss"]


def test_the_function_of_this_file_has_a_path():
    training = training_of(train)
    assert training.path == f"{Path(__file__).resolve()}:train"


def test_a_network_in_a_cycle_is_freed_after_its_training():
    networks = []

    def train(trial):
        model, loss = fitted(trial)
        model.itself = [model]
        networks.append(weakref.ref(model))
        return loss

    for arm in Arm:
        run_here(training_of(train), TrialSettings(arm, 0, None, {}, ()))
    assert [network() for network in networks] == [None, None]
