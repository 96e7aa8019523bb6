"""Results of an evaluation, on curves with results that can be computed by hand, and the reports of them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text
from scipy import stats

from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.results import Comparison, Curve, Point, Prediction
from metaopt.evaluation.statistics import Interval, first_at_or_below, geometric_mean
from metaopt.evaluation.summary import Summary
from metaopt.figures import rendered
from metaopt.nowcast.policy import NowcastEvent
from metaopt.reporting.charts import charts
from metaopt.reporting.findings import describe_result
from metaopt.reporting.formatting import interval
from metaopt.reporting.report import headline, report_markdown, terminal_table

STEPS = (20, 40, 60, 80)


def curve(contender, seed, losses, pace=1.0, events=()):
    points = tuple(Point(step, loss, step * pace) for step, loss in zip(STEPS, losses, strict=True))
    return Curve(contender, seed, points, tuple(events))


def comparison(controls=True):
    events = [
        NowcastEvent(40, 1.0, 0.5, True, guard_calls=2),
        NowcastEvent(80, 0.5, 0.9, False, guard_calls=2),
        NowcastEvent(80, None, None, False),
    ]
    curves = [
        curve("hold", 1, (1.0, 0.8, 0.5, 0.6)),
        curve("hold", 2, (1.0, 0.7, 0.6, 0.4)),
        curve("slow", 1, (1.0, 0.9, 0.8, 0.5)),
        curve("slow", 2, (1.0, 0.9, 0.8, math.nan)),
        curve("learned", 1, (0.9, 0.5, 0.5, 0.4), 2.0, events),
        curve("learned", 2, (0.7, 0.4, 0.4, 0.4), 2.0),
    ]
    predictions = [
        Prediction("learned", 1, 40, 0.8, 0.4, 0.5),
        Prediction("learned", 1, 80, 0.6, 0.3, None),
        Prediction("learned", 2, 40, 0.7, 0.35, 2.0),
    ]
    if controls:
        predictions += [Prediction("memory", 1, 40, 0.8, 0.4, None), Prediction("harm", 1, 40, 0.8, 8.0, None)]
    config = EvaluateConfig(steps=80, every=40, horizons=(40,), seeds=2, seed=1).to_mapping()
    return Comparison(config, "learned", tuple(curves), tuple(predictions))


def contender(name):
    return next(s for s in Summary(comparison()).contenders if s.contender == name)


def test_interval_is_students_on_logarithms():
    values = [1.2, 1.5, 0.9, 2.0]
    logs = np.log(values)
    low, high = stats.t.interval(0.95, 3, loc=logs.mean(), scale=stats.sem(logs))
    assert geometric_mean(values) == pytest.approx((np.exp(logs.mean()), np.exp(low), np.exp(high)))


def test_one_value_has_no_interval():
    assert geometric_mean([2.0]) == (2.0, None, None)


def test_a_loss_equal_to_the_target_reaches_it_and_nan_does_not():
    assert first_at_or_below(0.5, [math.nan, 0.6, 0.5, 0.1]) == 2
    assert first_at_or_below(0.5, [math.nan, 0.6]) is None


def test_steps_to_target_and_speed_up():
    full = contender("learned").full
    assert full.steps == (40, 40)  # targets 0.5 (hold: step 60) and 0.4 (hold: step 80)
    assert full.speed_up.mean == pytest.approx(math.sqrt(60 / 40 * 80 / 40))
    assert full.fewer_steps == pytest.approx(100 * (1 - 1 / full.speed_up.mean))
    assert full.speed_up_in_time.mean == pytest.approx(full.speed_up.mean / 2)
    assert contender("learned").early.steps == (40, 20)  # targets 0.8 and 0.7, both hold's at step 40


def test_hold_has_a_speed_up_of_one():
    assert contender("hold").full.steps == (60, 80)
    assert contender("hold").full.speed_up == (1.0, 1.0, 1.0)


def test_a_missed_target_counts_as_one_measurement_after_the_budget():
    full = contender("slow").full
    assert full.steps == (80, None)
    assert full.never == 1
    assert full.speed_up.mean == pytest.approx(math.sqrt(60 / 80 * 80 / 100))
    table = terminal_table(comparison())
    assert "slow: 1 early, 1 full" in table
    assert "≥89" in table


def test_statistics_of_nowcasts():
    learned = contender("learned")
    assert (learned.nowcasts, learned.accepted, learned.guard_passes) == (3, 1, 4)
    assert learned.gain.mean == pytest.approx(0.5)
    assert learned.error == pytest.approx(1.0)


def test_a_control_that_keeps_the_gain_does_not_fail():
    memory, harm = Summary(comparison()).controls
    assert memory.kept == pytest.approx(1.0)
    assert memory.fails is False
    assert harm.kept < 0
    assert harm.fails is True
    assert "memory DOES NOT FAIL" in terminal_table(comparison())


def test_the_result_is_strict_json_and_complete():
    result = json.loads(json.dumps(comparison().to_mapping(), allow_nan=False))
    assert result["curves"][3]["points"][3] == {"step": 80, "loss": None, "seconds": 80.0}
    assert result["curves"][4]["events"][0]["accepted"] is True
    assert EvaluateConfig.from_mapping(result["config"]) == EvaluateConfig(
        steps=80, every=40, horizons=(40,), seeds=2, seed=1
    )
    json.dumps(Summary(comparison()).to_mapping(), allow_nan=False)


@pytest.mark.parametrize("controls", [True, False])
def test_report_names_contenders_limits_and_the_share_of_steps(controls):
    report = report_markdown(comparison(controls))
    assert "*Adam alone* has no nowcasts" in report
    for text in ("## Limits", "| learned | 28 |", "42 % fewer", "held-out random seeds 1 to 2"):
        assert text in report
    assert ("Controls that must fail" in report) == controls


def race(candidate, baseline):
    """Runs that reach hold's best loss, that of step 80, after numbers of steps; None: never."""
    seeds = range(1, 1 + len(candidate))
    curves = [curve("hold", seed, (1.0, 0.9, 0.8, 0.5)) for seed in seeds]
    for name, pace, reached in (("slopes", 1.0, baseline), ("learned", 2.0, candidate)):
        for seed, when in zip(seeds, reached, strict=True):
            losses = tuple(0.4 if when is not None and step >= when else 0.9 for step in STEPS)
            curves.append(curve(name, seed, losses, pace))
    config = EvaluateConfig(steps=80, every=40, horizons=(40,), seeds=len(candidate), seed=1).to_mapping()
    return Comparison(config, "learned", tuple(curves), ())


@pytest.mark.parametrize(
    ("candidate", "baseline", "verdict"),
    [
        (
            (20, 20, 20),
            (80, 60, 80),
            "**learned needs 75 % fewer steps than Adam alone**. It needs 72 % (58 to 82 %) fewer steps than slopes.",
        ),
        ((20, 20, 40), (40, 20, 20), "**learned is not shown to be better than slopes**. It needs 69 % fewer steps"),
        ((40,), (60,), "**learned is not shown to be better than slopes**. It needs 50 % fewer steps than Adam alone."),
        ((20, 80, 80), (80, 80, 80), "**learned is not shown to be faster than Adam alone**. Speed-up 1.59 (0.22–"),
        ((60, None), (80, 80), "**learned is not shown to be faster than Adam alone**. Speed-up 1.03 (0.04–"),
        ((None, None), (80, 80), "**learned needs at least 25 % more steps than Adam alone**. Speed-up 0.80 in steps"),
        ((80, 80), (40, 40), "**learned needs as many steps as Adam alone**. Speed-up 1.00 in steps, 0.50 in seconds."),
    ],
)
def test_the_result_claims_only_what_is_shown(candidate, baseline, verdict):
    found = describe_result(Summary(race(candidate, baseline)))
    assert found.startswith(verdict)
    assert headline(race(candidate, baseline)).startswith(found)
    never = f"{candidate.count(None)} of {len(candidate)} random seeds did not reach the best loss of Adam alone."
    assert (never in found) == (None in candidate)
    assert "in seconds. " in found
    assert max(map(len, found.split(". "))) < 100


def test_the_terminal_shows_seconds_beside_steps_and_explains_its_names():
    heads, hold, *_, learned, legend, _, _ = terminal_table(comparison()).splitlines()
    assert heads.index("speed-up (95 %)") < heads.index("in seconds") < heads.index("loss by one forecast")
    assert hold.startswith("Adam alone")
    assert "1.73 (0.28–10.77)  0.87 (0.14–5.39)" in learned
    for words in ("Adam alone: no nowcasts", "slopes", "one forecast without a guard; all other columns: whole"):
        assert words in legend


def test_an_interval_without_width_is_not_shown():
    assert interval(Interval(0.96, 0.96, 0.96)) == "0.96"
    assert interval(Interval(1.27, 1.05, 1.53)) == "1.27 (1.05–1.53)"


def test_figures_name_the_base_optimizer_and_mark_what_never_arrived_beyond_the_budget():
    curves, steps, _ = (chart.figure() for chart in charts(comparison()))
    names = [text.get_text() for figure in (curves, steps) for text in figure.findobj(Text)]
    assert names.count("Adam alone") >= 2
    assert "hold" not in names
    arrows = [line for line in steps.axes[0].get_lines() if line.get_marker() == ">" and len(line.get_xdata())]
    assert [x for line in arrows for x in line.get_xdata()] == [pytest.approx(84)]


@pytest.mark.parametrize("controls", [True, False])
def test_charts_are_drawn_despite_nan(controls):
    found = charts(comparison(controls))
    assert [chart.name for chart in found] == ["loss_curves", "steps_to_target", "nowcasts"]
    for chart in found:
        assert rendered(chart.figure())["png"].startswith(b"\x89PNG")


def test_notes_state_what_limits_a_claim():
    notes = report_markdown(comparison()).partition("## Notes")[2].partition("##")[0]
    assert "*memory* **does not fail**: it keeps 100 % of the gain" in notes
    assert "harm" not in notes  # it fails, as it must
    assert "2 random seeds; a claim needs 5" in notes
    assert "At least as fast" not in notes
    assert "Final loss no higher" not in notes


@pytest.mark.parametrize("rates", [1, 3])
def test_a_note_states_that_too_few_learning_rates_ran(rates):
    curves = [replace(curve, rate=str(rate)) for rate in range(rates) for curve in comparison().curves]
    notes = report_markdown(replace(comparison(), curves=tuple(curves))).partition("## Notes")[2].partition("##")[0]
    assert ("Adam alone ran at fewer than three learning rates" in notes) == (rates < 3)
