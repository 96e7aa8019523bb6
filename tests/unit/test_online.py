"""Online meta-training: inner trainings are ordinary ones, rounds resume, and invalid input is refused."""

from dataclasses import replace

import pytest
import torch

from metaopt.core.errors import InvalidConfig, MetaoptError, UnknownName
from metaopt.core.rng import generator
from metaopt.core.tracker import SilentTracker
from metaopt.generative import get_optimizer_model
from metaopt.generative.extrapolation import Line
from metaopt.generative.files import save_optimizer
from metaopt.metatraining.inner_loop import InnerTrainings
from metaopt.metatraining.mixture import read_mixture
from metaopt.metatraining.online import (
    Cohort,
    OnlineSettings,
    OnlineSource,
    WarmUpTrainings,
    forecast_at_best_horizon,
    lookahead_update,
)
from metaopt.metatraining.paired_speedup import paired_speedup
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.nowcast import NowcastPolicy
from metaopt.weights.averaging import ExponentialMovingAverage

MIXTURE = """
mlp: {task: digits, target_model: MLP, target_options: {widths: [8]}, lr: "1e-3:1e-2", rows: 3}
cnn: {task: digits, target_model: ConvNet, target_options: {widths: [4], norm: batch}, rows: 2}
"""
SMALL = {"dim": 16, "num_latents": 4, "latent_dim": 16, "heads": 2, "depth": 1}


@pytest.fixture
def mixture(tmp_path):
    path = tmp_path / "mixture.yaml"
    path.write_text(MIXTURE, encoding="utf-8")
    return path


@pytest.fixture
def mlp(mixture):
    return read_mixture(mixture)[0]


@pytest.fixture
def config(mixture, tmp_path):
    return TrainOptimizerConfig(
        rounds=2,
        mixture=mixture,
        inner_steps=60,
        every=20,
        stride=10,
        task_batch=32,
        optimizer_options=SMALL,
        checkpoint_every=1,
        checkpoint_dir=tmp_path / "checkpoints",
    )


def trainings(component, rows=2, **changes):
    weights = torch.stack([component.problem.fresh_weights(seed) for seed in range(rows)])
    settings = {"batch_size": 32, "policy": NowcastPolicy(5, 5), "history": 3, "averaging": 0.0, "seed": 7, **changes}
    return InnerTrainings(component.problem, weights, torch.tensor([1e-3, 1e-2])[:rows], **settings)


def test_its_adam_is_torchs(mlp):
    cohort = trainings(mlp)
    problem, start = mlp.problem, cohort.weights.clone()
    cohort.advance(30)
    parameters = [torch.nn.Parameter(row.clone()) for row in start]
    adams = [torch.optim.Adam([p], lr) for p, lr in zip(parameters, (1e-3, 1e-2), strict=True)]
    batches = trainings(mlp)._batches
    for _ in range(30):
        for parameter, adam in zip(parameters, adams, strict=True):
            adam.zero_grad()
            problem.losses(parameter.unsqueeze(0), next(batches)).sum().backward()
            adam.step()
    torch.testing.assert_close(cohort.weights, torch.stack([p.detach() for p in parameters]), atol=1e-5, rtol=1e-4)


def test_the_same_arguments_give_the_same_trainings_and_another_seed_others(mlp):
    one, same, other = trainings(mlp), trainings(mlp), trainings(mlp, seed=8)
    for each in (one, same, other):
        each.advance(10)
    assert torch.equal(one.weights, same.weights)
    assert not torch.equal(one.weights, other.weights)


def test_histories_hold_snapshots_of_the_average_and_move_with_the_weights(mlp):
    cohort, plain = trainings(mlp, averaging=0.5), trainings(mlp)
    cohort.advance(10)
    plain.advance(10)
    history, times = cohort.past()
    assert times.tolist() == [[0, 5, 10]] * 2
    assert torch.equal(history[:, -1], cohort.averaged)
    assert torch.equal(cohort.weights, plain.weights)
    assert torch.equal(plain.averaged, plain.weights)
    assert not torch.equal(cohort.averaged, cohort.weights)
    before = cohort.weights
    cohort.shift(torch.tensor([True, False]), torch.ones_like(cohort.weights))
    moved, moved_times = cohort.past()
    assert torch.equal(moved_times, times)
    assert torch.equal(moved, history + torch.tensor([1.0, 0.0]).reshape(2, 1, 1))
    assert torch.equal(cohort.weights, before + torch.tensor([[1.0], [0.0]]))


def test_its_running_average_is_that_of_nowcast(mlp):
    cohort = trainings(mlp, averaging=0.9)
    average = ExponentialMovingAverage(0.9)
    for _ in range(7):
        cohort.advance(1)
        average.update([cohort.weights])
    torch.testing.assert_close(cohort.averaged, average.tensors[0])


def test_a_training_that_diverges_stays_where_it_is(mlp):
    cohort = trainings(mlp)
    cohort.shift(torch.tensor([True, False]), torch.full_like(cohort.weights, float("nan")))
    cohort.advance(5)
    assert cohort.diverged.tolist() == [True, False]
    assert cohort.weights[1].isfinite().all()


def test_the_gradient_of_an_update_is_that_of_the_loss_now_and_later(mlp):
    model = get_optimizer_model("PerceiverOptimizer", **SMALL)
    cohort = Cohort(mlp, OnlineSettings(100, NowcastPolicy(20, 10), history=5, averaging=0.9, examples=64), seed=3)
    update = lookahead_update(model, cohort)
    update.objective.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert update.figures["log_loss_change"] == pytest.approx(0, abs=1e-6)  # untrained, it holds
    assert update.figures["kept"] == 1
    assert cohort.trainings.step > 20


def test_rows_follow_the_horizon_that_a_guard_would_keep(mlp):
    """Seven of 10: three follow any horizon in between."""
    line, problem, policy = get_optimizer_model("Line"), mlp.problem, NowcastPolicy(10, 10, horizons=(10, 40))
    start = torch.stack([problem.fresh_weights(seed) for seed in range(20)])
    examples = problem.task.sample("meta", 64, generator(2))
    given = start.clone().requires_grad_()
    problem.losses(given, examples).sum().backward()
    history = torch.stack([start, start - 0.1 * given.grad], 1)  # downhill: the longer way is the better one
    times = torch.tensor([[90.0, 100.0]]).expand(20, -1)
    followed = forecast_at_best_horizon(line, history, times, policy, problem, examples, generator(3))
    ahead = 10 * (followed - history[:, 1]).norm(dim=1) / (history[:, 1] - history[:, 0]).norm(dim=1)
    best = (ahead - 40).abs() < 0.01
    assert 10 <= best.sum() < 20
    assert ((ahead > 10) & (ahead < 40))[~best].all()
    assert len(ahead[~best].round(decimals=2).unique()) == (~best).sum()
    early = forecast_at_best_horizon(
        line, history, torch.tensor([[30.0, 40.0]]).expand(20, -1), policy, problem, examples, generator(3)
    )
    ahead = 10 * (early - history[:, 1]).norm(dim=1) / (history[:, 1] - history[:, 0]).norm(dim=1)
    assert ahead.max() < 20.01, "at most half of the steps so far"


def test_a_nowcast_that_would_do_harm_is_not_followed(mlp):
    class Wild(Line):
        def extrapolate(self, history, t_history, t_end, layout):
            return 100 * history[:, -1] + 50

    cohort = Cohort(mlp, OnlineSettings(100, NowcastPolicy(20, 10), history=5, averaging=0.9, examples=64), seed=3)
    plain = Cohort(mlp, OnlineSettings(100, NowcastPolicy(20, 10), history=5, averaging=0.9, examples=64), seed=3)
    update = lookahead_update(Wild(), cohort)
    plain.trainings.advance(cohort.trainings.step - plain.trainings.step)
    assert update.figures["kept"] == 0
    assert update.objective == 0, "nothing is learned from what would not be kept"
    assert torch.equal(cohort.trainings.weights, plain.trainings.weights)


def test_weights_that_have_arrived_do_not_follow_an_average_that_lags(mlp):
    cohort = Cohort(mlp, OnlineSettings(600, NowcastPolicy(20, 10), history=5, averaging=0.999, examples=512), seed=3)
    cohort.trainings.advance(400)
    trainings = cohort.trainings
    trainings.short_average.tensors[0] = trainings.weights + 5 * (trainings.weights - trainings.averaged)  # far beyond

    class CatchUp(Line):
        def extrapolate(self, history, t_history, t_end, layout):
            return history[:, -1] + (trainings.weights - trainings.averaged)

    before = trainings.weights.clone()
    update = lookahead_update(CatchUp(), cohort)
    assert update.figures["kept"] == 1
    assert update.figures["followed"] == 0
    assert (trainings.weights - before).abs().max() < 1


def test_rows_follow_only_where_they_go_straight_on(mlp):
    cohort = Cohort(mlp, OnlineSettings(100, NowcastPolicy(20, 10), history=5, averaging=0.9, examples=64), seed=3)
    trainings = cohort.trainings
    trainings.advance(60 - trainings.step)
    rows, still = len(trainings.weights), torch.zeros_like(trainings.weights)
    turns = torch.arange(rows) % 2 == 0
    ways = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]).repeat(rows, 1)
    ways[turns] = torch.tensor([0.0, 1.0, 2.0, 3.0, 2.0])
    trainings._history = trainings.weights.unsqueeze(1) + ways.unsqueeze(-1)
    followed = trainings.follow(torch.ones(rows, dtype=torch.bool), still, cohort.examples())
    assert torch.equal(followed, ~turns)


@pytest.mark.parametrize(("min_cosine", "followed"), [(-1.0, True), (1.0, False)])
def test_how_straight_inner_trainings_must_go_is_a_setting(config, min_cosine, followed):
    ground = OnlineSource(replace(config, min_cosine=min_cosine), history=5, averaging=0.9)
    cohort = Cohort(ground.components[0], ground.plan, seed=3)
    cohort.trainings.advance(60)
    assert (lookahead_update(Line(), cohort).figures["followed"] > 0) == followed


def test_predictions_of_the_weights_themselves_are_followed_wherever_they_are_good(mlp):
    cohort = Cohort(mlp, OnlineSettings(100, NowcastPolicy(20, 10), history=5, averaging=0.0, examples=64), seed=3)
    trainings = cohort.trainings
    trainings.short_average.tensors[0] = trainings.weights + 100  # as far from anything good as can be
    update = lookahead_update(Line(), cohort)
    assert update.figures["followed"] == update.figures["kept"] > 0


class Told(SilentTracker):
    def __init__(self):
        self.datasets = []

    def dataset(self, name, source, digest, context):
        self.datasets.append((name, context))


def test_a_data_set_that_several_ingredients_use_is_told_once(config):
    tracker = Told()
    OnlineSource(config, history=5, averaging=0.98).describe(tracker)
    assert tracker.datasets == [("digits", "mlp, cnn")]


def test_rounds_train_and_are_judged(config):
    trained = train_optimizer(config, SilentTracker())
    assert trained.learned == ["mlp", "cnn"]
    assert len(trained.layouts) == 2
    assert {"train_log_loss_change", "val_speedup/mlp", "val_speedup/cnn"} <= trained.figures.keys()
    assert trained.checkpoint.parent.name == "mixture"


def test_resumed_rounds_are_those_of_a_training_without_a_stop(config, tmp_path):
    whole = train_optimizer(config, SilentTracker())
    first = train_optimizer(replace(config, rounds=1, checkpoint_name="two"), SilentTracker())
    second = train_optimizer(replace(config, rounds=1, checkpoint_name="two"), SilentTracker(), first.checkpoint)
    assert second.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_rounds_start_from_a_trained_optimizer(config, tmp_path):
    first = train_optimizer(replace(config, rounds=1, lr=1e-2), SilentTracker())
    go_on = {"optimizer_options": {}, "start_from": str(first.checkpoint), "lr": 1e-12, "weight_decay": 0.0}
    second = train_optimizer(replace(config, rounds=1, checkpoint_name="two", **go_on), SilentTracker())
    assert second.optimizer.config == first.optimizer.config
    for name, value in second.optimizer.state_dict().items():
        torch.testing.assert_close(value, first.optimizer.state_dict()[name], msg=name)


def test_an_optimizer_of_another_kind_is_no_start(config, tmp_path):
    save_optimizer(get_optimizer_model("Line"), tmp_path / "line.safetensors")
    with pytest.raises(InvalidConfig, match=r"start_from is a Line, and optimizer_model PerceiverOptimizer"):
        train_optimizer(
            replace(config, optimizer_options={}, start_from=str(tmp_path / "line.safetensors")), SilentTracker()
        )
    with pytest.raises(InvalidConfig, match="leave the options out"):
        replace(config, start_from="builtin")


def test_hold_races_itself_to_a_draw(mlp):
    result = paired_speedup(get_optimizer_model("Hold"), mlp, 60, NowcastPolicy(20, 10), seed=1)
    assert result["speedup"] == pytest.approx(1)
    assert result["final_log_ratio"] == pytest.approx(0, abs=1e-6)


def test_the_best_of_several_horizons_is_kept(mlp):
    near, far, both = (
        paired_speedup(Line(), mlp, 400, NowcastPolicy(40, 20, each), seed=3) for each in ((20,), (80,), (20, 80))
    )
    assert both["kept"] > far["kept"] > 0
    assert both["speedup"] > max(near["speedup"], far["speedup"])


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("one: {task: digit}", UnknownName, "one in the mixture: .*did you mean digits"),
        ("one: {task: digits, target_model: MPL}", UnknownName, "one in the mixture: .*did you mean MLP"),
        ("one: {learning_rate: 1}", InvalidConfig, "one in the mixture: unknown parameter 'learning_rate'"),
        ("one: 3", InvalidConfig, "expected names and values"),
        ("[1, 2]", InvalidConfig, "expected names and values"),
    ],
)
def test_a_mixture_that_cannot_be_names_its_ingredient(tmp_path, text, error, message):
    path = tmp_path / "mixture.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        read_mixture(path)


@pytest.mark.parametrize("change", [{"mixture": None}, {"rounds": 0}, {"every": 15}])
def test_a_plan_that_contradicts_itself_is_refused(config, change):
    with pytest.raises(MetaoptError, match=r"rounds|every"):
        replace(config, **change)


def test_plain_trainings_give_histories_from_anywhere_in_them(mlp):
    plan = OnlineSettings(60, NowcastPolicy(20, 10), history=4, averaging=0.9, examples=8)
    plain = WarmUpTrainings(mlp, plan, generator(3))
    history, times = plain.draw(generator(4))
    assert history.shape == (16, 4, mlp.problem.layout.size)
    assert times.max() <= 60
    assert len(times[:, -1].unique()) > 3
    assert (times[:, 1:] >= times[:, :-1]).all()
    start, same = times[:, 0] == 0, times[:, 1] == times[:, 0]
    assert torch.equal(history[start & same][:, 0], history[start & same][:, 1])  # absent ones are copies
    assert torch.equal(plain.draw(generator(4))[0], history)


def test_a_warm_up_comes_before_the_first_round_and_resumes(config):
    warmed = replace(config, warm_up=5)
    whole = train_optimizer(warmed, SilentTracker())
    first = train_optimizer(replace(warmed, rounds=1, checkpoint_name="two"), SilentTracker())
    second = train_optimizer(replace(warmed, rounds=1, checkpoint_name="two"), SilentTracker(), first.checkpoint)
    assert second.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    cold = train_optimizer(replace(config, checkpoint_name="cold"), SilentTracker())
    assert not torch.equal(
        cold.optimizer.state_dict()["coefficients.weight"], whole.optimizer.state_dict()["coefficients.weight"]
    )
