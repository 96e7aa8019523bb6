"""The claims about growth: every one is measured by one command, and stored."""

from math import inf, isnan

import pytest

from benchmarks.growth import claims, controllers, grown, step_cost
from benchmarks.growth.claims import CLAIMS, Plan
from metaopt.growth import blueprints
from metaopt.reinforcement.scored_episode import Result


@pytest.fixture
def plan(tmp_path):
    return Plan(tmp_path, tmp_path, seeds=2, quick=False)


def test_rewards_of_paths_and_actions_of_outside_blueprints_reach_their_goals(plan, monkeypatch):
    monkeypatch.setattr(blueprints, "_DECORATED", dict(blueprints._DECORATED))
    rows = [*claims.pump(plan), *claims.outside_package(plan)]
    assert [row.result for row in rows] == ["reached"] * 3
    assert rows[0].figures[0] == pytest.approx(29 / 13)


def test_networks_that_grow_are_compared_at_the_best_rate_of_their_host(plan, monkeypatch):
    """The trainings themselves are those of `metaopt train-target --twins true`, whose tests run them."""
    trained = []

    def static_loss(case, data_dir, lr, folder):
        trained.append(lr)
        return abs(float(lr) - 3e-3)

    def ratios(case, data_dir, seed, lr, folder):
        trained.append((seed, lr))
        return {"loss": 1.0, "loss_over_static": 0.95 + 0.01 * seed, "loss_over_equal_size": 1.0 + 0.2 * seed}

    monkeypatch.setattr(grown, "static_loss", static_loss)
    monkeypatch.setattr(grown, "ratios", ratios)
    rows = [claims.networks("cifar", plan) for _ in range(2)][1]
    assert trained == ["1e-3", "3e-3", "1e-2", (0, "3e-3"), (1, "3e-3")]  # once
    assert [row.claim.rpartition(": ")[2] for row in rows] == ["static", "equal size"]
    assert [row.figures for row in rows] == [[0.95, 0.96], [1.0, 1.2]]
    assert [row.result for row in rows] == ["reached", "missed"]


def test_a_learned_controller_is_compared_once_per_random_seed(plan, monkeypatch):
    def compare(name, case, data_dir, folder, seed):
        lost = 0.0 if case.imitate else 0.5
        rows = [{"controller": "PPO", "z over random": 2.0 + seed, "of best schedule": 1.0 - 0.1 * seed - lost}]
        return [*rows, {"controller": "best schedule: schedule:conv@0"}]

    monkeypatch.setattr(controllers, "compare", compare)
    rows = CLAIMS["controllers-digits"](plan)
    assert [(row.figures, row.result) for row in rows] == [([2.0, 3.0], "reached by 1 of 2"), ([1.0, 0.9], "reached")]
    assert rows[1].notes == "best schedule: schedule:conv@0"
    alone = CLAIMS["controllers-digits-alone"](plan)
    assert [(row.figures, row.result) for row in alone] == [([2.0, 3.0], "reached by 1 of 2"), ([0.5, 0.4], "missed")]
    assert [each[0].claim.partition(":")[0] for each in (rows, alone)] == [
        "controller by PPO after imitation on digits", "controller by PPO on digits",
    ]  # fmt: skip


def test_controllers_are_compared_on_paired_episodes():
    def play_one(controller, random_seed):
        gain = {"random": 0.0, "schedule:conv@0": 2.0, "policy": 1.0}[controller]
        return Result(random_seed, gain + 0.1 * random_seed, 1.0, 2.0, 0.5)

    names = {"PPO": "policy", "best schedule": "schedule:conv@0", "random": "random"}
    learned, best, _ = controllers.rows_of(names, range(2), play_one)
    assert (learned["return"], learned["of best schedule"]) == pytest.approx((1.05, 1.05 / 2.05))
    assert learned["z over random"] == inf
    assert best["controller"] == "best schedule: schedule:conv@0"
    names["best schedule"] = "random"
    assert isnan(controllers.rows_of(names, range(1), play_one)[0]["of best schedule"])


def test_the_cost_of_a_step_is_a_claim_for_each_blueprint(plan, monkeypatch):
    found = {"ratio": 1.5, "least": 1.4, "most": 1.6}

    def measured(task, batch, host, blueprint, rounds):
        return {**found, "slot": blueprint or "dormant", "goal": 2.0 if blueprint else 1.01}

    monkeypatch.setattr(step_cost, "measured", measured)
    rows = claims.cost(plan)[:5]
    assert [row.claim.rpartition(": ")[2] for row in rows] == ["dormant", "attention", "conv", "depthwise", "norm"]
    assert [row.result for row in rows] == ["missed", *["reached"] * 4]


def test_every_case_is_a_claim():
    assert {f"grown-{name}" for name in grown.CASES} <= set(CLAIMS)
    assert {f"controllers-{name}" for name in controllers.CASES} <= set(CLAIMS)
    alone = {f"controllers-{name}-alone" for name, case in controllers.CASES.items() if case.imitate}
    assert alone == {name for name in CLAIMS if name.endswith("-alone")} != set()
