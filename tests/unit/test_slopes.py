"""Slopes: exact on lines, and the dependence of its time spans on horizon and history."""

import pytest
import torch

from metaopt.generative import get_optimizer_model
from metaopt.weights.layout import Layout, WeightTensor

LAYOUT = Layout((WeightTensor("w", (1,), "float32"),))


def predicted(values, horizon, **options):
    """The predicted change of a weight with these values at the steps 0, 20, 40 …"""
    history = torch.tensor([values], dtype=torch.float32).unsqueeze(2)
    times = 20.0 * torch.arange(len(values)).unsqueeze(0)
    optimizer = get_optimizer_model("Slopes", **options)
    return float(optimizer.predict(history, times, times[:, -1] + horizon, LAYOUT) - history[:, -1])


@pytest.mark.parametrize("snapshots", [2, 3, 5, 9, 12])
@pytest.mark.parametrize("horizon", [1.0, 60.0, 5000.0])
def test_a_line_is_extrapolated_exactly(snapshots, horizon):
    assert predicted([3 + 0.5 * step for step in range(snapshots)], horizon) == pytest.approx(
        0.5 * horizon / 20, rel=1e-4, abs=1e-5
    )


def test_a_short_horizon_uses_short_spans():
    jump = [0.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]  # in the last stride
    short, long = (predicted(jump, horizon) / horizon for horizon in (20.0, 320.0))
    assert short > 2 * long > 0


def test_a_single_snapshot_gives_hold():
    assert predicted([1.5], 100.0) == 0.0


def test_a_longer_history_has_longer_spans():
    bent = [*(float(step) for step in range(8, 0, -1)), *[0.0] * 9]  # decreasing, then constant for eight strides
    assert predicted(bent, 600.0, history=9) == 0.0
    assert predicted(bent, 600.0, history=17) < 0.0
