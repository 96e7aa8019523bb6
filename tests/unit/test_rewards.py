"""Rewards of a controller: what paths of losses with the same start and the same end earn."""

import math
from itertools import accumulate

import pytest

from metaopt.growth.stages import Stage
from metaopt.reinforcement.rewards import Moment, SpecReward, TwinReward, total

START, FALL, RISE = 3.0, 0.5, 0.4
OSCILLATING = list(accumulate([-FALL, *[RISE, -FALL] * 8], initial=START))
DIRECT = [START + (OSCILLATING[-1] - START) * index / 17 for index in range(18)]
SPEC = SpecReward(sigma=0.1, baseline_loss=2.3, target_loss=1.5)


def moments(losses, twin=2.0):
    return [Moment(loss, twin) for loss in losses]


def without_end(reward, losses):
    """The sum without the bonus at the end, which is the same for both paths."""
    return sum(reward(*pair, is_last=False) for pair in zip(moments(losses), moments(losses)[1:], strict=False))


def test_spec_pays_2_23_times_for_a_path_that_oscillates():
    """Nine falls of 5 σ (the clip) with eight rises of 4 σ between them, and a steady fall of the same 13 σ.

    The first earns 9 · 5 − 8 · 4 / 2 = 29, the second one 13.
    """
    assert DIRECT[-1] == pytest.approx(OSCILLATING[-1])
    assert without_end(SPEC, DIRECT) == pytest.approx(13)
    assert without_end(SPEC, OSCILLATING) / without_end(SPEC, DIRECT) == pytest.approx(2.23, abs=0.005)
    with_end = total(SPEC, moments(OSCILLATING)) / total(SPEC, moments(DIRECT))
    assert with_end == pytest.approx((29 + 0.75) / (13 + 0.75))  # the bonus at the end is 0.75: 2.16 times in all


@pytest.mark.parametrize("twin_losses", [[2.0] * 18, DIRECT, OSCILLATING])
def test_twin_pays_the_same_for_both_paths(twin_losses):
    reward = TwinReward(sigma=0.1, rent=0.0)
    first, second = (
        total(reward, [Moment(*pair) for pair in zip(losses, twin_losses, strict=True)])
        for losses in (OSCILLATING, [*DIRECT[:-1], OSCILLATING[-1]])
    )
    if abs(second) > 1e-6:
        assert first / second == pytest.approx(1.0, abs=1e-9)
    assert first == pytest.approx(second, abs=1e-9)
    assert first == pytest.approx((twin_losses[-1] - OSCILLATING[-1] - twin_losses[0] + START) / 0.1)


def test_twin_pays_nothing_to_the_twin_itself():
    assert total(TwinReward(sigma=0.1, rent=0.5), [Moment(loss, loss) for loss in OSCILLATING]) == 0.0


def test_each_decision_costs_the_rent_of_what_has_grown():
    path = [Moment(2.0, 2.0), Moment(1.0, 1.0, grown=1.0), Moment(0.5, 0.5, grown=1.0)]
    assert total(TwinReward(sigma=0.1, rent=0.5), path) == pytest.approx(-math.log(2))


@pytest.mark.parametrize(("fall", "expected"), [(0.2, 2.0), (-0.2, -1.0), (9.0, 5.0), (-9.0, -2.5)])
def test_spec_clips_changes_and_halves_rises(fall, expected):
    assert SPEC(Moment(2.0, 0.0), Moment(2.0 - fall, 0.0), is_last=False) == pytest.approx(expected)


def test_spec_pays_for_stages_and_for_the_end():
    after = Moment(2.0, 0.0, entered=(Stage.SHADOWING, Stage.FOSSILIZED, Stage.CULLED))
    assert SPEC(Moment(2.0, 0.0), after, is_last=False) == pytest.approx(0.6)
    assert SPEC(Moment(1.9, 0.0), Moment(1.9, 0.0), is_last=True) == pytest.approx(0.5)
