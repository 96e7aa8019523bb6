"""Whether a training goes straight on, which is where its weights may follow a prediction."""

import pytest
import torch

from metaopt.nowcast import policy as straight
from metaopt.nowcast.policy import goes_straight

MEMORY_OF_TWO_STRIDES = {"stride": 20, "averaging": 0.975}


def walk(*steps):
    """Snapshots of three weights that move by these steps."""
    return torch.cat([torch.zeros(1, 3), torch.tensor(steps).cumsum(0)])


AHEAD, BACK, ASIDE = [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [([AHEAD] * 4, True), ([AHEAD, AHEAD, BACK, BACK], False), ([AHEAD, AHEAD, ASIDE, ASIDE], False)],
)
def test_displacements_that_follow_each_other_are_compared(steps, expected):
    assert bool(goes_straight(walk(*steps), 9, **MEMORY_OF_TWO_STRIDES)) is expected


def test_they_are_as_long_as_the_average_looks_back():
    to_and_fro = walk([3.0, 0.0, 0.0], BACK, [3.0, 0.0, 0.0], BACK)  # straight over two strides, not over one
    assert goes_straight(to_and_fro, 9, **MEMORY_OF_TWO_STRIDES)
    assert not goes_straight(to_and_fro, 9, stride=20, averaging=0.95)


def test_they_are_shorter_while_there_is_less_history():
    assert goes_straight(walk(AHEAD, AHEAD), 9, **MEMORY_OF_TWO_STRIDES)
    assert not goes_straight(walk(AHEAD, BACK), 9, **MEMORY_OF_TWO_STRIDES)
    assert not goes_straight(walk(AHEAD), 9, **MEMORY_OF_TWO_STRIDES), "nothing is known yet"


def test_where_there_will_never_be_a_history_nothing_speaks_against():
    assert goes_straight(walk(AHEAD), 2, **MEMORY_OF_TWO_STRIDES)


def test_weights_that_stand_still_do_not_go_straight_on():
    assert not goes_straight(torch.ones(9, 3), 9, **MEMORY_OF_TWO_STRIDES)


@pytest.mark.parametrize("cosine", [-0.5, 0.0, 0.5, 0.9])
def test_the_cosine_that_is_asked_for(cosine):
    turn = [cosine, (1 - cosine**2) ** 0.5, 0.0]
    history = walk(AHEAD, AHEAD, turn, turn)
    assert goes_straight(history, 9, **MEMORY_OF_TWO_STRIDES, at_least=cosine - 0.01)
    assert not goes_straight(history, 9, **MEMORY_OF_TWO_STRIDES, at_least=cosine + 0.01)


def test_many_rows_and_weights_are_judged_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(straight, "_AT_ONCE", 7)
    history = torch.randn(40, 5, 50, generator=torch.Generator().manual_seed(0))
    first, then = history[:, 2] - history[:, 0], history[:, 4] - history[:, 2]
    cosines = torch.nn.functional.cosine_similarity(first, then)
    asked = float(cosines.sort().values[19:21].mean())  # half of the rows are above it
    judged = goes_straight(history, 9, **MEMORY_OF_TWO_STRIDES, at_least=asked)
    assert torch.equal(judged, cosines >= asked)
    assert int(judged.sum()) == 20
