"""The verdict of a comparison: its rate of false alarms, its power, and what must not change it. No training."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.comparison.judgement import Word, judge
from metaopt.comparison.power import MOST_SEEDS, USUAL_POWER, power, seeds_needed
from metaopt.evaluation.statistics import geometric_mean, mean_interval

ALARMS = (Word.HELPS, Word.HARMS)
values = st.floats(0.1, 10)
pairs = st.lists(st.tuples(values, values), min_size=2, max_size=8)


def comparisons(count, seeds, gain, noise, draw=np.zeros):
    """Verdicts on simulated comparisons: random seeds differ by 20 %, twins by the noise, nowcasts gain [%]."""
    for _ in range(count):
        plain = 1 + 0.2 * np.random.default_rng(0).random(seeds)
        nowcast = plain - plain.mean() / 100 * (gain + noise * draw(seeds))
        yield judge("loss", plain.tolist(), nowcast.tolist())


def share(verdicts, words):
    found = [verdict.word in words for verdict in verdicts]
    return sum(found) / len(found)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_a_forecaster_that_does_nothing_is_found_to_help_or_harm_in_one_of_twenty_comparisons(seeds):
    draw = np.random.default_rng(seeds).standard_normal
    count = 4000
    alarms = share(comparisons(count, seeds, gain=0.0, noise=3.0, draw=draw), ALARMS)
    assert alarms <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / count)
    assert alarms >= 0.03  # a rate of zero would have no power either


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.exponential(size=n) - 1,  # skewed
        lambda rng, n: rng.standard_t(3, size=n),  # with outliers
        lambda rng, n: rng.choice([-1.0, 1.0], size=n) * rng.random(n),
    ],
    ids=["skewed", "heavy tails", "two sides"],
)
def test_other_noise_raises_the_rate_of_false_alarms_to_an_eighth_at_most(draw):
    rng = np.random.default_rng(1)
    alarms = share(comparisons(3000, 5, gain=0.0, noise=3.0, draw=lambda n: draw(rng, n)), ALARMS)
    assert alarms <= 0.125


def test_exact_twins_show_no_difference_in_all_comparisons():
    assert share(comparisons(20, 3, gain=0.0, noise=0.0), [Word.NO_DIFFERENCE]) == 1


@pytest.mark.parametrize(("seeds", "noise"), [(3, 1.0), (3, 2.5), (5, 2.5), (5, 5.0), (10, 5.0)])
def test_a_planted_gain_of_5_percent_is_found_with_the_stated_power(seeds, noise):
    draw = np.random.default_rng(seeds).standard_normal
    count = 3000
    found = share(comparisons(count, seeds, gain=5.0, noise=noise, draw=draw), [Word.HELPS])
    stated = power(5.0, noise, seeds)
    assert abs(found - stated) < 4 * math.sqrt(max(stated * (1 - stated), 0.01) / count)


def test_the_power_of_the_documentation():
    table = [[round(power(5, noise, seeds), 2) for seeds in (3, 5, 10)] for noise in (1, 2.5, 5)]
    assert table == [[0.98, 1.0, 1.0], [0.47, 0.91, 1.0], [0.18, 0.4, 0.8]]


@given(st.floats(0.05, 20), st.floats(0.05, 20))
def test_the_number_of_random_seeds_is_the_least_with_the_usual_power(difference, noise):
    needed = seeds_needed(difference, noise)
    if needed is None:
        assert power(difference, noise, MOST_SEEDS) < USUAL_POWER
    else:
        assert power(difference, noise, needed) >= USUAL_POWER
        assert needed == 2 or power(difference, noise, needed - 1) < USUAL_POWER


@pytest.mark.parametrize(("difference", "noise", "expected"), [(0.0, 1.0, None), (1.0, 0.0, 2), (-1.0, 1.0, 10)])
def test_limits_of_the_number_of_random_seeds(difference, noise, expected):
    assert seeds_needed(difference, noise) == expected


@given(pairs)
def test_the_direction_of_the_metric_swaps_helps_and_harms(measured):
    old, new = zip(*measured, strict=True)
    lower, higher = (judge("m", old, new, lower_is_better=each).word for each in (True, False))
    swapped = {Word.HELPS: Word.HARMS, Word.HARMS: Word.HELPS}
    assert higher == swapped.get(lower, lower)


@given(pairs, st.sampled_from([1e-3, 0.5, 2.0, 1024.0]))
def test_the_unit_of_the_metric_does_not_matter(measured, factor):
    old, new = zip(*measured, strict=True)
    one = judge("m", old, new)
    other = judge("m", [each * factor for each in old], [each * factor for each in new])
    assert other.difference == pytest.approx(one.difference, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ([1.0, 1.1, 0.9], [0.9, 1.0, 0.85], "helps: difference of loss −8.3 ± 7.2 %"),
        ([0.9, 1.0, 0.85], [1.0, 1.1, 0.9], "harms: difference of loss +9.1 ± 7.8 %"),
        ([1.0, 2.0], [1.0, 2.0], "no difference: difference of loss 0 ± 0 %"),
        ([1.0, 1.1, 0.9], [1.02, 1.12, 0.88], "not shown to help: difference of loss +0.67 ± 5.7 %"),
        ([1.0, 1.1, 0.9], [1.001, 1.1, 0.899], "no difference: difference of loss 0 ± 0.25 %"),
        ([100.0, 101.0], [100.1, 101.11], "no difference: difference of loss +0.1 ± 0.063 %"),
        ([1.0], [0.9], "no verdict: difference of loss −10 %"),
        ([-1.0, 1.0, 2.0], [0.0, 2.0, 3.5], "helps: difference of loss +1.2 ± 0.72"),
        ([1.0, math.nan], [math.inf, 2.0], "no verdict: 2 pairs without a finite loss"),
        ([1.0, 2.0], [math.nan, math.inf], "harms: 2 trainings ended without a finite loss"),
        ([math.nan], [math.nan], "no verdict: 1 pair without a finite loss"),
        ([1.0, 2.0, 3.0], [math.nan, 2.0, 3.0], "harms: 1 training ended without a finite loss"),
        ([math.nan, 2.0, 3.0], [1.0, 1.9, 2.9], "helps: difference of loss −4 ± 0 %"),
        ([], [], "no verdict: no pair is complete"),
    ],
)
def test_the_sentence_of_a_verdict(old, new, sentence):
    lower_is_better = -1.0 not in old
    assert judge("loss", old, new, lower_is_better=lower_is_better).sentence == sentence


def test_hints_say_how_many_random_seeds_would_show_the_difference():
    (hint,) = judge("loss", [1.0, 1.1, 0.9], [1.02, 1.12, 0.88]).hints
    assert "With 3 random seeds the interval is wide" in hint
    needed = seeds_needed(2 / 3, 2.309401)
    assert f"{needed} random seeds would show it (80 % power)" in hint
    (hint,) = judge("loss", [1.0], [0.9]).hints
    assert "--seeds 3" in hint
    (hint,) = judge("loss", [1.0, 1.0], [1.1, 0.9]).hints
    assert "More than 1,000 random seeds" in hint


def test_the_geometric_mean_is_the_mean_of_logarithms():
    found, logs = geometric_mean([1.0, 2.0, 8.0]), mean_interval([math.log(each) for each in (1.0, 2.0, 8.0)])
    assert found == pytest.approx([math.exp(each) for each in logs])
