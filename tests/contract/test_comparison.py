"""Every base optimizer can be compared: its steps are counted, and its twins are twins until the first nowcast."""

import pytest
import torch
from torch import nn

import metaopt
from metaopt.comparison.checks import doubts_about_twins
from metaopt.comparison.results import Arm
from metaopt.comparison.running import TrialSettings, run_here
from metaopt.comparison.training import training_of
from metaopt.optimizers import BASE_OPTIMIZERS, build_optimizer


@pytest.mark.parametrize("name", BASE_OPTIMIZERS.table)
def test_a_base_optimizer_can_be_compared(name):
    def train(trial):
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
        inputs = torch.randn(16, 4)
        base = build_optimizer(name, model.parameters(), 1e-2, {})
        optimizer = trial.optimizer(base, model, metaopt.get_optimizer_model("Line"), every=4, stride=2, horizons=2)

        def closure():
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            return loss

        for _ in range(6):
            optimizer.step(closure)
        return lambda: model(inputs).square().mean()

    results = [run_here(training_of(train), TrialSettings(arm, 0, None, {}, (0.9,))) for arm in Arm]
    assert [result.steps for result in results] == [6, 6]
    assert doubts_about_twins(results) == []
    assert results[0].averaged.keys() == {"EMA 0.9"}
