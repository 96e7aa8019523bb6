"""The trainable weights of a network, and freezing by name."""

import pytest
from torch import nn

from metaopt.core.errors import InvalidConfig
from metaopt.weights.selection import train_only, trainable


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in trainable(model)]


@pytest.fixture
def model() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model[0].bias.requires_grad_(False)
    return model


def test_frozen_weights_are_not_trainable(model):
    assert names(model) == ["0.weight", "1.weight", "1.bias"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(None, ["0.weight", "1.weight", "1.bias"]), ("weight", ["0.weight", "1.weight"]), ("^1", ["1.weight", "1.bias"])],
)
def test_only_matching_weights_stay_trainable(model, pattern, expected):
    train_only(model, pattern)
    assert names(model) == expected


@pytest.mark.parametrize("pattern", ["lora", "0.bias"])
def test_a_pattern_that_matches_nothing_is_rejected(model, pattern):
    with pytest.raises(InvalidConfig, match=r"none of the 3 trainable weights of Sequential: 0\.weight, "):
        train_only(model, pattern)
    assert len(names(model)) == 3
