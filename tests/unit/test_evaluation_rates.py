"""Learning rates, losses after nowcasts and promotion, checked against figures computed by hand."""

import math

import pytest
from scipy import stats

from metaopt.core.config import Range
from metaopt.core.errors import Diverged
from metaopt.core.paired_test import paired_p_value
from metaopt.core.tracker import SilentTracker
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.promotion import compare_with_champion
from metaopt.evaluation.results import Comparison, Curve, Point
from metaopt.evaluation.summary import Summary, at_best_rates, at_rate, best_rate, losses_after_nowcasts
from metaopt.generative import get_optimizer_model
from metaopt.nowcast.policy import NowcastEvent
from metaopt.reporting.report import report_markdown, terminal_table
from metaopt.reporting.tables import contenders_csv
from metaopt.workflows.evaluate_optimizer import compare

STEPS = (20, 40, 90, 240)


def curve(contender, seed, rate, losses, events=()):
    points = tuple(Point(step, loss, float(step)) for step, loss in zip(STEPS, losses, strict=True))
    return Curve(contender, seed, points, tuple(events), rate)


def comparison(curves, candidate="learned"):
    config = EvaluateConfig(steps=240, every=40, seeds=2, seed=1, learning_rates=(0.1, 0.2)).to_mapping()
    return Comparison(config, candidate, tuple(curves), ())


@pytest.fixture
def two_rates():
    events = [NowcastEvent(40, 1.0, 0.5, True)]
    return comparison(
        curve(name, seed, rate, losses, events if name == "learned" else ())
        for rate, hold, learned in (
            ("0.1", (1.0, 0.9, 0.8, 0.6), (1.0, 0.6, 0.6, 0.3)),
            ("0.2", (1.0, 0.8, 0.5, 0.9), (1.0, 0.4, 0.5, 0.9)),
        )
        for seed in (1, 2)
        for name, losses in (("hold", hold), ("learned", learned))
    )


def test_each_contender_is_compared_at_its_own_best_rate(two_rates):
    assert (best_rate(two_rates, "hold"), best_rate(two_rates, "learned")) == ("0.2", "0.1")
    best = at_best_rates(two_rates)
    assert [(c.contender, c.rate) for c in best.curves] == [("hold", "0.2")] * 2 + [("learned", "0.1")] * 2
    assert Summary(best).candidate.full.steps == (240, 240)  # to 0.5, hold's best at its best rate
    assert Summary(at_rate(two_rates, "0.1")).candidate.full.steps == (40, 40)  # to 0.6


def test_a_rate_with_nan_losses_is_never_the_best():
    curves = [curve("hold", 1, "0.1", (1, 1, 1, 1)), curve("hold", 1, "0.2", (math.nan,) * 4)]
    assert best_rate(comparison(curves), "hold") == "0.1"


def test_report_and_table_contain_all_rates(two_rates):
    report = report_markdown(two_rates)
    assert "| learned | 0.1 | 6.00 |" in report
    assert "at its best learning rate,\n0.2." in report
    assert "learned    " in terminal_table(two_rates)
    lines = contenders_csv(two_rates).splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [[r, c] for r in ("0.1", "0.2") for c in ("hold", "learned")]


def test_losses_after_nowcasts_are_relative_to_the_paired_hold_run(two_rates):
    found = losses_after_nowcasts(two_rates)
    assert [(a.contender, a.delay) for a in found] == [("learned", 0), ("learned", 50), ("learned", 200)]
    assert [a.ratio.mean for a in found] == pytest.approx([0.6 / 0.9, 0.6 / 0.8, 0.3 / 0.6])


def test_measurements_follow_nowcasts():
    config = EvaluateConfig(steps=400, every=120, stride=20, evaluate_every=100)
    assert config.measured_steps == [100, 120, 170, 200, 240, 290, 300, 360, 400]


def test_the_paired_test_is_students():
    values = [0.3, 0.1, 0.2, 0.4, -0.1]
    assert paired_p_value(values) == pytest.approx(stats.ttest_1samp(values, 0, alternative="greater").pvalue)
    assert paired_p_value([-value for value in values]) == 1
    assert paired_p_value([0.2]) == 1
    assert paired_p_value([0.2, 0.2]) == 0


@pytest.mark.parametrize(
    ("seeds", "faster", "better"), [(5, True, True), (5, False, False), (1, True, False), (5, None, False)]
)
def test_only_a_significantly_faster_candidate_is_promoted(seeds, faster, better):
    slow, fast = (1.0, 0.9, 0.6, 0.5), (1.0, 0.5, 0.4, 0.4)
    ours, theirs = {True: (fast, slow), False: (slow, fast), None: (slow, slow)}[faster]
    curves = [
        curve(name, seed, "0.1", losses)
        for seed in range(seeds)
        for name, losses in (("hold", slow), ("champion", theirs), ("learned", ours))
    ]
    decided = compare_with_champion(comparison(curves))
    assert decided.better is better
    assert f"{seeds} random seed" in decided.reason


def test_being_faster_at_some_random_seeds_is_not_enough():
    slow, fast = (1.0, 0.9, 0.6, 0.5), (1.0, 0.5, 0.4, 0.4)
    curves = [
        curve(name, seed, "0.1", losses)
        for seed, first in enumerate([True, True, True, False])
        for name, losses in (
            ("hold", slow),
            ("champion", slow if first else fast),
            ("learned", fast if first else slow),
        )
    ]
    assert not compare_with_champion(comparison(curves)).better


def small(**changes):
    return EvaluateConfig(
        target_model="MLP",
        target_options={"widths": [4]},
        steps=8,
        every=4,
        stride=4,
        evaluate_every=4,
        seeds=1,
        controls=False,
        cache_dir=None,
        **changes,
    )


def test_everything_runs_at_every_rate():
    found = compare(small(learning_rates=(0.001, 0.01), baselines="all"), get_optimizer_model("Hold"), SilentTracker())
    assert found.rates == ["0.001", "0.01"]
    assert {"cosine", "schedule-free", "RNA", "judged hold + EMA"} <= set(found.contenders)
    assert len(found.curves) == 2 * len(found.contenders)
    assert {prediction.rate for prediction in found.predictions} == {"0.001", "0.01"}


def test_a_rate_that_diverges_is_left_out_unless_all_do(caplog):
    found = compare(
        small(base_optimizer="SGD", learning_rates=(1e30, 0.01)), get_optimizer_model("Hold"), SilentTracker()
    )
    assert found.rates == ["0.01"]
    assert "lr 1e+30 is left out" in caplog.text
    with pytest.raises(Diverged, match="take a lower lr"):
        compare(small(base_optimizer="SGD", learning_rates=(1e30,)), get_optimizer_model("Hold"), SilentTracker())


def test_learning_rates_replace_lr():
    assert small().rates == (Range(1e-3, 1e-3),)
    assert small(lr="1e-3:1e-2").rates == (Range(1e-3, 1e-2),)
    assert small(learning_rates="0.1,0.2,0.1").rates == (Range(0.1, 0.1), Range(0.2, 0.2))
