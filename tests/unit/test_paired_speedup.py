"""Paired inner trainings measure the speed-up of nowcasts."""

import pytest

from metaopt.generative import get_optimizer_model
from metaopt.generative.extrapolation import Line
from metaopt.metatraining.paired_speedup import paired_speedup
from metaopt.nowcast import NowcastPolicy


def test_paired_runs_of_hold_have_a_speedup_of_one(mlp):
    result = paired_speedup(get_optimizer_model("Hold"), mlp, 60, NowcastPolicy(20, 10), seed=1)
    assert result["speedup"] == pytest.approx(1)
    assert result["final_log_ratio"] == pytest.approx(0, abs=1e-6)


def test_the_best_of_several_horizons_is_chosen(mlp):
    near, far, both = (
        paired_speedup(Line(), mlp, 400, NowcastPolicy(40, 20, each), seed=3) for each in ((20,), (80,), (20, 80))
    )
    assert both["kept"] > far["kept"] > 0
    assert both["speedup"] > max(near["speedup"], far["speedup"])
