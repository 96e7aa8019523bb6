"""The policy of nowcasts: when, which horizons, what is accepted, and what the weights follow."""

import math

import pytest
import torch
from torch import nn

from metaopt.core.errors import InvalidConfig
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.paired_runs import RunSetup
from metaopt.generative.extrapolation import Hold
from metaopt.metatraining import lookahead
from metaopt.metatraining.inner_loop import InnerTrainings
from metaopt.metatraining.lookahead import forecast_at_best_horizon
from metaopt.metatraining.whole_trainings import apply_nowcast
from metaopt.nowcast import Nowcast, NowcastPolicy, policy
from metaopt.tasks import load_task
from metaopt.weights.layout import Layout

TWO_STRIDES = 0.975  # decay of an average that looks two strides of 20 steps back


def goes_straight(history, length, averaging=TWO_STRIDES, **parameters):
    return NowcastPolicy(every=40, stride=20, **parameters).goes_straight(history, length, averaging)


def walk(*steps):
    """Snapshots of three weights that move by these steps."""
    return torch.cat([torch.zeros(1, 3), torch.tensor(steps).cumsum(0)])


AHEAD, BACK, ASIDE = [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [([AHEAD] * 4, True), ([AHEAD, AHEAD, BACK, BACK], False), ([AHEAD, AHEAD, ASIDE, ASIDE], False)],
)
def test_displacements_that_follow_each_other_are_compared(steps, expected):
    assert bool(goes_straight(walk(*steps), 9)) is expected


def test_they_are_as_long_as_the_average_looks_back():
    to_and_fro = walk([3.0, 0.0, 0.0], BACK, [3.0, 0.0, 0.0], BACK)  # straight over two strides, not over one
    assert goes_straight(to_and_fro, 9)
    assert not goes_straight(to_and_fro, 9, averaging=0.95)


def test_they_are_shorter_while_there_is_less_history():
    assert goes_straight(walk(AHEAD, AHEAD), 9)
    assert not goes_straight(walk(AHEAD, BACK), 9)
    assert not goes_straight(walk(AHEAD), 9), "nothing is known yet"


def test_where_there_will_never_be_a_history_nothing_speaks_against():
    assert goes_straight(walk(AHEAD), 2)


def test_weights_that_stand_still_do_not_go_straight_on():
    assert not goes_straight(torch.ones(9, 3), 9)


@pytest.mark.parametrize("cosine", [-0.5, 0.0, 0.5, 0.9])
def test_the_cosine_that_is_asked_for(cosine):
    turn = [cosine, (1 - cosine**2) ** 0.5, 0.0]
    history = walk(AHEAD, AHEAD, turn, turn)
    assert goes_straight(history, 9, min_cosine=cosine - 0.01)
    assert not goes_straight(history, 9, min_cosine=cosine + 0.01)


def test_many_rows_and_weights_are_judged_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(policy, "_WEIGHTS_AT_ONCE", 7)
    history = torch.randn(40, 5, 50, generator=torch.Generator().manual_seed(0))
    first, then = history[:, 2] - history[:, 0], history[:, 4] - history[:, 2]
    cosines = torch.nn.functional.cosine_similarity(first, then)
    asked = float(cosines.sort().values[19:21].mean())  # half of the rows are above it
    judged = goes_straight(history, 9, min_cosine=asked)
    assert torch.equal(judged, cosines >= asked)
    assert int(judged.sum()) == 20


def test_when_snapshots_and_nowcasts_are_due():
    schedule = NowcastPolicy(every=6, stride=3)
    assert [step for step in range(1, 13) if schedule.snapshot_due(step)] == [3, 6, 9, 12]
    assert [step for step in range(1, 13) if schedule.nowcast_due(step)] == [6, 12]


def test_losses_that_are_not_finite_are_neither_best_nor_accepted():
    before = torch.tensor([2.0, 2.0])
    after = torch.tensor([[math.nan, 0.0], [1.0, 1.0], [-math.inf, 0.0]])
    best, accepted = NowcastPolicy().choose(before, after)
    assert (int(best), bool(accepted)) == (1, True)
    assert not policy.accepts(torch.tensor([math.inf, 1.0]), torch.tensor([1.0, 1.0]))


class Problem:
    """Losses of eight examples as fixed functions of one weight."""

    layout = Layout.of(nn.Linear(1, 1, bias=False))

    def __init__(self, seed):
        random = torch.Generator().manual_seed(seed)
        self.task, self.turns = None, seed % 2 == 1
        self.pace, self.phase = 3 * torch.rand(8, generator=random), 6 * torch.rand(8, generator=random)

    def example_losses(self, weights, examples=None):
        return 2 + torch.sin(self.pace * weights + self.phase)


class Ahead(Hold):
    """Adds a tenth of the horizon to the last snapshot."""

    history, averaging = 5, 0.97

    def extrapolate(self, history, t_history, t_end, layout):
        return history[:, -1] + (t_end - t_history[:, -1]).unsqueeze(1) / 10


HORIZONS = (4, 8, 16)


def verdict_of_the_wrapper(problem, settings):
    """Accepted, horizon, followed; and the state that the other places start from."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    guard = lambda: problem.example_losses(model.weight.detach().flatten())  # noqa: E731
    optimizer = Nowcast(
        torch.optim.SGD(model.parameters(), lr=0.05), model, Ahead(), policy=settings, guard=guard, max_overhead=None
    )
    states = []
    for step in range(64):
        turns_back = problem.turns and step > 55
        model.weight.grad = torch.full((1, 1), 3.0 if turns_back else -1.0 if step % 7 else 5.0)
        if step == 63:
            optimizer._schedule.make_due, nowcast = (lambda: None), optimizer._schedule.make
            optimizer.step()
            states.append(torch.stack(optimizer._tracked.history.snapshots.rows))
            averages = (optimizer._tracked.averages.predicted, optimizer._tracked.averages.short)
            states += [each.tensors[0].flatten().clone() for each in averages]
            states += [model.weight.detach().flatten().clone(), list(optimizer._tracked.history.times)]
            nowcast()
        else:
            optimizer.step()
    event = optimizer.events[-1]
    return (event.accepted, event.horizon if event.accepted else None, event.followed), states


def inner_trainings(problem, settings, states):
    """The same training as a row of inner trainings."""
    history, average, short, weights, times = states
    row = InnerTrainings(
        problem, weights[None], torch.ones(1), batch_size=1, policy=settings, history=5, averaging=0.97, seed=0
    )
    row.average.update([average[None]])
    row.short_average.update([short[None]])
    row.step, row._history, row._times = times[-1], history[None], torch.tensor([times], dtype=torch.float32)
    return row


def moved_by(row, before):
    return bool((row.weights != before).any())


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("min_cosine", [-1.0, 0.7])
def test_all_four_places_give_the_same_verdict(seed, min_cosine, monkeypatch):
    # every row takes the horizon that the guard would choose
    monkeypatch.setattr(lookahead, "_RANDOM_HORIZON_SHARE", 0.0)
    problem, settings = Problem(seed), NowcastPolicy(64, 4, HORIZONS, min_cosine)
    verdict, states = verdict_of_the_wrapper(problem, settings)
    accepted, horizon, followed = verdict

    validated = inner_trainings(problem, settings, states)
    before = validated.weights
    share, offset = apply_nowcast(Ahead(), validated, settings, None)
    assert (bool(share), moved_by(validated, before)) == (accepted, followed)
    assert bool(offset.any()) == (accepted and not followed)

    learning = inner_trainings(problem, settings, states)
    forecast = forecast_at_best_horizon(
        Ahead(), *learning.history(), settings, problem, None, torch.Generator().manual_seed(0)
    )
    ours = learning.accept(forecast, None)
    assert bool(ours) == accepted
    if accepted:
        assert float((forecast - learning.averaged) * 10) == pytest.approx(horizon, rel=1e-3)
    assert bool(learning.follow(ours, forecast - learning.averaged, None)) == followed

    case = EvaluateConfig(every=64, stride=4, horizons=HORIZONS, min_cosine=min_cosine)
    setup = RunSetup(case, load_task("digits"), seed=0)
    assert setup.nowcast_optimizer(setup.build(), Ahead()).policy == settings


def test_the_verdicts_differ_from_case_to_case():
    verdicts = {verdict_of_the_wrapper(Problem(seed), NowcastPolicy(64, 4, HORIZONS))[0] for seed in range(30)}
    assert {(accepted, followed) for accepted, _, followed in verdicts} == {(True, True), (True, False), (False, False)}
    assert {horizon for accepted, horizon, _ in verdicts if accepted} > {4, 16} or len(verdicts) > 3


@pytest.mark.parametrize("share", [0, -0.5, math.nan, math.inf])
def test_the_maximum_share_is_a_positive_fraction(share):
    with pytest.raises(InvalidConfig, match="expected a positive fraction of the steps so far"):
        NowcastPolicy(max_share=share)
