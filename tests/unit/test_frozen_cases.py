"""The frozen cases are as they were chosen, and their scores are ratios to the best baseline."""

import json
import math

import pytest

from benchmarks.frozen import cases
from benchmarks.frozen.run import Score, behind, contenders, over_cases, scores, table
from metaopt.core.config import read_config_file
from metaopt.core.errors import InvalidConfig
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.results import Comparison, Curve, Point
from metaopt.targets import get_target_model, target_config
from metaopt.tasks import TASKS, task_config

FACTS = {
    "cnn": {"in_features": 768, "in_channels": 3, "image_size": 16, "classes": 10},
    "mlp": {"in_features": 30, "classes": 2},
    "transformer": {"vocab_size": 65, "block_size": 32},
}


def test_the_cases_are_those_that_were_frozen():
    assert json.loads(cases.DIGESTS.read_text()) == cases.digests()
    cases.check_frozen(cases.names())
    assert len(cases.names()) == 13


@pytest.mark.parametrize("name", cases.names())
def test_a_frozen_case_follows_the_protocol(name, tmp_path):
    config = cases.case(name, tmp_path, tmp_path)
    assert (len(config.learning_rates), config.seeds, config.baselines) == (5, 10, "all")
    task_config(config.task, config.task_options)
    facts = FACTS[TASKS.get(config.task).topology]
    assert get_target_model(config.target_model, **target_config(config.target_model, facts, config.target_options))


def test_a_changed_case_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "FOLDER", tmp_path)
    (tmp_path / "cases").mkdir()
    (tmp_path / "networks.py").write_text("")
    (tmp_path / "cases" / "digits_mlp.yaml").write_text("steps: 10\n")
    with pytest.raises(InvalidConfig, match=r"digits_mlp\.yaml is not as it was frozen"):
        cases.check_frozen(["digits_mlp"])


def test_the_table_is_that_of_scikit_learn(tmp_path):
    config = cases.case("table_mlp", tmp_path, tmp_path, seeds=2)
    lines = config.data_dir.read_text().splitlines()
    assert len(lines) == 570
    assert lines[0].startswith("feature_0,")
    assert lines[0].endswith(",label")
    assert config.seeds == 2


def comparison(losses):
    """Losses at steps 10, 20, 30 and 40 of two random seeds, by contender."""
    curves = [
        Curve(name, seed, tuple(Point(10 * (k + 1), loss, 1.0) for k, loss in enumerate(row)), rate="0.1")
        for name, rows in losses.items()
        for seed, row in enumerate(rows)
    ]
    return Comparison({"steps": 40}, "learned", tuple(curves), ())


def test_scores_are_relative_to_the_best_baseline():
    found = scores(
        comparison(
            {
                "hold": [(4, 3, 2, 1)] * 2,
                "EMA 0.98": [(4, 2, 1, 0.8)] * 2,
                "SOAP": [(3, 1, 0.9, 0.9)] * 2,
                "learned": [(1, 0.8, 0.7, 0.4)] * 2,
                "slow": [(4, 3, 2, math.nan)] * 2,
            }
        )
    )
    assert found["learned"].steps == pytest.approx((0.5, 0.5))  # 10 of SOAP's 20 steps
    assert found["learned"].loss == pytest.approx((0.5, 0.5))  # 0.4 of the EMA's 0.8
    assert found["SOAP"].loss == pytest.approx((1.125, 1.125))
    assert found["slow"].never == 2
    assert found["slow"].loss == (math.inf, math.inf)


def test_a_baseline_that_is_behind_in_steps_and_in_loss_is_not_trained_further():
    tuned = comparison(
        {
            "hold": [(4, 3, 2, 1)] * 2,
            "SOAP": [(3, 1, 0.9, 0.9)] * 2,
            "cosine": [(4, 3, 2, 0.91)] * 2,  # slower, but about as good at the end
            "EMA 0.98": [(4, 3, 1, 0.95)] * 2,
            "learned": [(4, 3, 2, 1.5)] * 2,
        }
    )
    assert behind(tuned) == ["EMA 0.98"]


def test_the_contenders_are_all_that_an_evaluation_can_have_without_nowcasts():
    names = contenders({"builtin-fast": None, "builtin": None})
    assert {"hold", "growing average", "cosine", "SOAP 0.5 + average", "LearnedSOAP + average"} < set(names)
    assert names[-3:] == ["builtin-fast", "builtin", "builtin without guard"]
    assert len(set(names)) == len(names)


def test_means_are_over_cases_and_intervals_over_random_seeds():
    cases_of_one = [Score((0.5, 0.5), (1.0, 1.0), 0), Score((2.0, 2.0), (0.25, 1.0), 1)]
    steps, loss = over_cases(cases_of_one)
    assert steps.mean == pytest.approx(1.0)
    assert (steps.low, steps.high) == pytest.approx((1.0, 1.0))
    assert loss.mean == pytest.approx(0.5**0.5)
    assert loss.low < loss.mean < loss.high
    found = {"a": {"learned": cases_of_one[0]}, "b": {"learned": cases_of_one[1]}}
    assert "| learned | 1.00 (1.00–1.00) |" in table(found, ["a", "b"])


def test_every_case_has_a_comment_and_its_data_is_given_by_the_command():
    for name in cases.names():
        path = cases.FOLDER / "cases" / f"{name}.yaml"
        assert path.read_text().startswith("# ")
        assert EvaluateConfig.from_mapping({**read_config_file(path), "trust_config": True}).data_dir is None
