"""The stages of a curriculum against their definition, for any results."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.core.errors import InvalidConfig
from metaopt.metatraining.curriculum import Curriculum, CurriculumConfig, StageConfig, read_curriculum

RESULTS = st.lists(st.tuples(st.integers(1, 30), st.floats(0.0, 2.0)), max_size=60)
"""Steps of checkpoints, in any order and repeated, with their results."""


def build(stages=3, **values):
    config = CurriculumConfig(**{"checkpoints": 2, "advance_at": 0.9, "step_back_at": 1.1, **values})
    return Curriculum(config, [StageConfig(horizon=number) for number in range(1, stages)] + [StageConfig()])


def numbers(curriculum, results):
    seen = []
    for step, result in results:
        curriculum.observe(step, result)
        seen.append(curriculum.number)
    return seen


def defined(results, stages, count):
    """The stages by their definition, from the results of distinct checkpoints."""
    number, kept, last, seen = 1, [], 0, []
    for step, result in results:
        if step > last:
            last, kept = step, [*kept, result]
            recent = kept[-count:]
            move = 0 if len(recent) < count else (fmean(recent) <= 0.9) - (fmean(recent) >= 1.1)
            if 1 <= number + move <= stages and move:
                number, kept = number + move, []
        seen.append(number)
    return seen


@given(RESULTS, st.integers(1, 4), st.integers(1, 4))
def test_the_stages_follow_their_definition(results, stages, count):
    assert numbers(build(stages, checkpoints=count), results) == defined(results, stages, count)


@given(RESULTS)
def test_a_checkpoint_counts_once(results):
    repeated = [each for each in results for _ in range(3)]
    assert numbers(build(), repeated)[2::3] == numbers(build(), results)


@given(st.lists(st.just(7), min_size=1, max_size=20))
def test_one_checkpoint_never_advances(steps):
    assert set(numbers(build(), [(step, 0.0) for step in steps])) == {1}


@given(RESULTS, st.integers(0, 60))
def test_resumed_equals_uninterrupted(results, cut):
    first, resumed = build(), build()
    before = numbers(first, results[:cut])
    resumed.load_state_dict(first.state_dict())
    assert before + numbers(resumed, results[cut:]) == numbers(build(), results)


@given(st.lists(st.floats(0.0, 2.0), max_size=40))
def test_a_higher_speedup_is_better(results):
    lower = build()
    higher = build(metric="speedup", advance_at=-0.9, step_back_at=-1.1)
    assert numbers(higher, [(step, -each) for step, each in enumerate(results, 1)]) == numbers(
        lower, [*enumerate(results, 1)]
    )


def test_good_results_advance_and_bad_ones_step_back():
    good, bad = [(step, 0.5) for step in range(1, 6)], [(step, 1.5) for step in range(6, 12)]
    assert numbers(build(), good + bad) == [1, 2, 2, 3, 3, 3, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("result", [float("nan"), float("inf")])
def test_a_result_that_is_not_finite_steps_back(result):
    assert numbers(build(), [(1, 0.5), (2, 0.5), (3, result), (4, 0.5), (5, None)]) == [1, 2, 1, 1, 1]


@pytest.mark.parametrize(
    "state",
    [
        {"number": 4, "last_step": 1, "results": []},
        {"number": 0, "last_step": 1, "results": []},
        {"number": True, "last_step": 1, "results": []},
        {"number": 1, "last_step": -1, "results": []},
        {"number": 1, "last_step": 3, "results": [1.0, 1.0, 1.0]},
        {"number": 1, "last_step": 3, "results": [float("nan")]},
    ],
)
def test_an_impossible_state_is_refused(state):
    with pytest.raises(ValueError, match="curriculum"):
        build().load_state_dict(state)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("advance_at: 1", r"has the stages None; expected a list such as `- \{horizon: 40\}`"),
        ("stages: []", "expected a list"),
        ("{advance_at: 1, step_back_at: 2, stages: [5]}", "stage 1 is 5; expected names with values"),
        ("{advance_at: 1, step_back_at: 2, stages: [{}, {horizont: 5}]}", "stage 2: unknown parameter 'horizont'"),
        ("{advance_at: 1, step_back_at: 2, stages: [{horizon: 0}]}", "stage 1: horizon is 0; expected 1 or more"),
        ("{step_back_at: 2, stages: [{}]}", "advance_at is missing; expected a number, the mean relative_error"),
        ("{advance_at: 2, step_back_at: 2, stages: [{}]}", "a lower relative_error is better; expected a worse value"),
        ("{metric: speedup, advance_at: 1, step_back_at: 2, stages: [{}]}", "a higher speedup is better"),
        ("{metric: speed, stages: [{}]}", "did you mean speedup"),
    ],
)
def test_invalid_files_are_refused(tmp_path, text, message):
    path = tmp_path / "curriculum.yaml"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=message):
        read_curriculum(path)
