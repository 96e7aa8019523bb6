"""The clock against its definition: at which steps levels are due, their counts, and resuming."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.core.clock import LevelClock, LevelSpec
from metaopt.core.errors import CheckpointError, InvalidConfig


@st.composite
def levels(draw, name="level"):
    period = draw(st.integers(1, 20))
    return LevelSpec(name, period, draw(st.integers(0, period - 1)), draw(st.integers(0, 50)))


@given(levels(), st.integers(0, 100))
def test_a_level_is_due_by_its_definition_and_its_counts_are_sums(level, last):
    steps = [i for i in range(last + 1) if i > 0 and i >= level.warm_up and i % level.period == level.phase]
    assert [step for step in range(last + 1) if level.fires(step)] == steps
    assert level.count(last) == len(steps)


@given(st.integers(1, 50), st.integers(0, 1000))
def test_without_phase_and_warm_up_the_count_is_a_quotient(period, step):
    assert LevelSpec("level", period).count(step) == step // period


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 30), st.integers(0, 30))
def test_resumed_equals_uninterrupted(periods, before, after):
    def clock():
        return LevelClock([LevelSpec(f"level {number}", period) for number, period in enumerate(periods)])

    whole, first = clock(), clock()
    expected = [whole.tick() for _ in range(before + after)]
    ticks = [first.tick() for _ in range(before)]
    resumed = clock()
    resumed.load_state_dict(first.state_dict())
    assert ticks + [resumed.tick() for _ in range(after)] == expected
    assert resumed.counts() == whole.counts()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"period": 0}, "period of the level 'slow' is 0; expected an integer from 1"),
        ({"period": 1.5}, "period of the level 'slow' is 1.5"),
        ({"period": True}, "period of the level 'slow' is True"),
        ({"period": 4, "phase": 4}, "phase of the level 'slow' is 4; expected an integer from 0 to below the period"),
        ({"warm_up": -1}, "warm_up of the level 'slow' is -1"),
    ],
)
def test_invalid_levels_are_refused(numbers, message):
    with pytest.raises(InvalidConfig, match=message):
        LevelSpec("slow", **numbers)


@pytest.mark.parametrize("name", [["slow"], 4, None])
def test_a_name_that_is_no_text_is_refused(name):
    with pytest.raises(InvalidConfig, match="expected text, such as 'slow'"):
        LevelSpec(name, period=4)


@pytest.mark.parametrize(("given_levels", "message"), [([], "without levels"), ([LevelSpec("a")] * 2, "the name 'a'")])
def test_invalid_clocks_are_refused(given_levels, message):
    with pytest.raises(InvalidConfig, match=message):
        LevelClock(given_levels)


def test_a_state_of_other_levels_is_refused():
    with pytest.raises(CheckpointError, match="a clock of the levels"):
        LevelClock([LevelSpec("a", 2)]).load_state_dict(LevelClock([LevelSpec("a", 3)]).state_dict())


STATE = LevelClock([LevelSpec("a", 2)]).state_dict()


@pytest.mark.parametrize(
    "state",
    [
        *({}, None, [], {"step": 3}, {"levels": STATE["levels"]}, {**STATE, "more": 1}),
        *({**STATE, "step": step} for step in (-1, True, 1.0, "1", None)),
        *({**STATE, "levels": levels} for levels in (None, 2, "a", [None], [2], ["a"], [[]], {"a": 2})),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(state):
    clock = LevelClock([LevelSpec("a", 2)], step=5)
    with pytest.raises(CheckpointError, match="a clock"):
        clock.load_state_dict(state)
    assert clock.step == 5
