"""What `Nowcast` says about itself: `summary`, `repr`, and metrics of each nowcast."""

import logging
import time

import pytest

from metaopt.core.errors import InvalidConfig
from metaopt.generative import get_optimizer_model
from metaopt.nowcast import guard_from
from metaopt.nowcast.policy import NowcastEvent

from ..small_training import HELD_OUT, batch, guarded, loss_at, network, network_with_batchnorm, nowcast, train


def test_summary_says_what_was_done_and_what_it_cost():
    model = network_with_batchnorm()
    losses = iter([1.0, 0.5, 1.0, 2.0])
    optimizer = nowcast(model, guard=lambda: time.sleep(0.02) or next(losses), max_overhead=None)
    train(model, optimizer, range(10))
    lines = {line.partition("  ")[0]: line.partition("  ")[2].strip() for line in optimizer.summary().splitlines()}
    assert lines["base"] == "Adam, learning rate 0.01"
    assert lines["forecaster"] == "LineOptimizer, from 2 snapshots" or lines["forecaster"].startswith("Line")
    assert lines["schedule"] == "every 4 steps, a snapshot every 2 steps"
    assert lines["horizons"] == "4 steps"
    assert lines["guard"] == "a function"
    assert lines["nowcasts"] == "2 in 10 steps: 1 accepted, 1 followed by the weights"
    assert lines["mean gain"] == "0.5 of the guard's loss by an accepted nowcast (50 %)"
    assert lines["seconds"].startswith("steps ")
    assert "(no limit)" in lines["overhead"]
    assert [cost.step for cost in optimizer.costs] == [4, 8]
    for cost in optimizer.costs:
        assert cost.guard >= 0.04
        assert cost.forecast > 0
        assert cost.reestimation > 0
        assert cost.forecast + cost.guard + cost.reestimation < cost.total
    assert optimizer._record.budget.nowcasts == pytest.approx(sum(cost.total for cost in optimizer.costs))


def test_summary_before_the_first_step_of_averages_and_of_a_limit():
    forecaster = get_optimizer_model("Line", averaging=0.9)
    guard = guard_from(batch(HELD_OUT), lambda outputs, labels: outputs.mean(1))
    text = nowcast(network(), forecaster, guard=guard, max_overhead=0.05).summary()
    assert "of averages of decay 0.9" in text
    assert "256 examples at each nowcast" in text
    assert "0 % of the time of the steps (at most 5 %)" in text
    assert "none: every finite forecast is accepted" in nowcast(network()).summary()


def test_the_gain_of_a_nowcast():
    assert NowcastEvent(4, 1.0, 0.75, True).gain == 0.25
    assert NowcastEvent(4, 1.0, 0.75, False).gain == 0
    assert NowcastEvent(4, None, None, True).gain == 0


class Writer:
    def __init__(self):
        self.written = []

    def add_scalar(self, name, value, step):
        self.written.append((name, value, step))


class Logger:
    def __init__(self):
        self.written = []

    def log_metrics(self, metrics, step=None):
        self.written.append((metrics, step))


def test_each_nowcast_becomes_metrics():
    model, got, writer, logger = network(), [], Writer(), Logger()
    optimizer = guarded(model)
    for target in (lambda metrics, step: got.append((step, metrics)), writer, logger, logger):
        optimizer.log_to(target)
    train(model, optimizer, range(9))
    assert [step for step, _ in got] == [4, 8]
    event, metrics = optimizer.events[0], got[0][1]
    assert metrics["nowcast/accepted"] == float(event.accepted)
    assert metrics["nowcast/followed"] == float(event.followed)
    assert metrics["nowcast/horizon"] == 4
    assert metrics["nowcast/gain"] == event.gain
    assert metrics["nowcast/loss_before"] == event.loss_before
    assert metrics["nowcast/guard_seconds"] == optimizer.costs[0].guard
    assert metrics["nowcast/forecast_seconds"] == optimizer.costs[0].forecast
    assert metrics["nowcast/reestimation_seconds"] == 0
    assert metrics["nowcast/overhead"] > 0
    assert logger.written == [(metrics, step) for step, metrics in got]
    assert writer.written == [(name, value, step) for step, each in got for name, value in each.items()]


def test_metrics_without_a_guard_have_no_losses():
    model, got = network(), []
    optimizer = nowcast(model)
    optimizer.log_to(lambda metrics, step: got.append(metrics))
    train(model, optimizer, range(4))
    assert set(got[0]) == {
        f"nowcast/{name}"
        for name in (
            "accepted", "followed", "horizon", "forecast_seconds", "guard_seconds", "reestimation_seconds", "overhead"
        )
    }  # fmt: skip


def test_a_target_that_fails_is_told_once_and_others_are_refused(caplog):
    def fails(metrics, step):
        raise ConnectionError("no server")

    model = network()
    optimizer = guarded(model)
    optimizer.log_to(fails)
    with caplog.at_level(logging.WARNING):
        train(model, optimizer, range(12))
    told = [record.message for record in caplog.records if record.name == "metaopt.nowcast.metrics"]
    assert told == ["the metrics of a nowcast did not reach fails: ConnectionError: no server. Told once"]
    assert len(optimizer.events) == 3
    with pytest.raises(InvalidConfig, match="log_to got 'mlflow'; expected the module mlflow"):
        optimizer.log_to("mlflow")
    assert loss_at(model, 0).isfinite()
