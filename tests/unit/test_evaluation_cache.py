"""A run is trained once; a damaged entry of the cache is trained again."""

import json
import logging

import pytest

from metaopt.core.tracker import SilentTracker
from metaopt.evaluation import runner
from metaopt.evaluation.config import EvaluateConfig
from metaopt.generative import get_optimizer_model
from metaopt.workflows.evaluate_optimizer import compare


@pytest.fixture
def trained(monkeypatch):
    """Names of the contenders that were trained."""
    names, train = [], runner.train_contender

    def recorded(setup, name, *rest, **more):
        names.append(name)
        return train(setup, name, *rest, **more)

    monkeypatch.setattr(runner, "train_contender", recorded)
    return names


@pytest.fixture
def case(tmp_path):
    def run(candidate="Hold", champion=None, candidate_options=None, **changes):
        options = {
            "target_model": "MLP",
            "target_options": {"widths": [4]},
            "steps": 16,
            "every": 8,
            "stride": 4,
            "evaluate_every": 4,
            "seeds": 1,
            "lr": 0.01,
            "cache_dir": str(tmp_path / "cache"),
        }
        config = EvaluateConfig.from_mapping({**options, **changes})
        other = None if champion is None else get_optimizer_model(champion)
        return compare(config, get_optimizer_model(candidate, **(candidate_options or {})), SilentTracker(), other)

    return run


def plain(comparison):
    return [(c.contender, c.seed, c.losses, c.events) for c in comparison.curves], comparison.predictions


def test_the_same_case_is_read_from_the_cache(case, trained):
    first = case()
    assert trained == ["hold", "hold", "line", "average", "slopes", "judged hold"]  # the second one is for the controls
    assert not any(curve.cached for curve in first.curves)
    again = case()
    assert len(trained) == 6
    assert all(curve.cached for curve in again.curves)
    assert plain(first) == plain(again)


def test_another_candidate_reuses_the_baselines(case, trained):
    case()
    trained.clear()
    case("Line", champion="Hold", candidate_options={"history": 2})
    assert trained == ["judged line"]  # the champion was trained as "judged hold"


def test_an_optimizer_that_predicts_averages_is_measured_by_its_average(case):
    options = {"history": 2, "averaging": 0.9}
    averaged = case("Line", candidate_options=options)
    weights, average = (averaged.curves_of(name)[0] for name in ("judged line without EMA", "judged line"))
    assert average.events
    assert not weights.events
    assert average.losses != weights.losses
    unaveraged = case("Line", candidate_options={"history": 2})
    of_averages, of_weights = (each.predictions_of("judged line")[0] for each in (averaged, unaveraged))
    assert of_averages.loss_before != of_weights.loss_before


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_slopes_are_fitted_to_the_snapshots_of_the_candidate(case, averaging):
    comparison = case("Slopes", candidate_options={"averaging": averaging})
    for baseline, same in zip(comparison.curves_of("slopes"), comparison.curves_of("judged slopes"), strict=True):
        assert baseline.losses == same.losses


def test_several_horizons_are_proposed(case):
    several = case("Line", candidate_options={"averaging": 0.9}, horizons=[4, 8])
    assert {event.horizon for curve in several.curves_of("judged line") for event in curve.events} <= {4, 8}


def test_the_least_cosine_decides_whether_weights_follow(case):
    options = {"candidate_options": {"averaging": 0.9}, "steps": 64}
    always, never = (case("Line", min_cosine=cosine, **options).curves_of("judged line") for cosine in (-1, 1))
    assert any(event.followed for curve in always for event in curve.events)
    assert not any(event.followed for curve in never for event in curve.events)


@pytest.mark.parametrize("change", [{"lr": 0.02}, {"steps": 24}, {"seed": 3}, {"target_options": {"widths": [5]}}])
def test_a_changed_run_is_trained_again(case, trained, change):
    case()
    trained.clear()
    case(**change)
    assert "hold" in trained


def test_settings_of_nowcasts_do_not_change_hold(case, trained):
    case()
    trained.clear()
    case(guard_batch=64)
    assert trained == ["line", "average", "slopes", "judged hold"]


def test_hold_is_reused_if_it_is_measured_at_the_same_steps(case, trained):
    case(every=8, evaluate_every=8, stride=4)
    trained.clear()
    case(every=4, evaluate_every=8, stride=4)
    assert "hold" not in trained


@pytest.mark.parametrize(
    "corrupt", [lambda text: text[:-9], lambda text: json.dumps({"curves": []}), lambda text: "[]"]
)
def test_a_damaged_entry_is_trained_again(case, trained, tmp_path, caplog, corrupt):
    first = case()
    trained.clear()
    for path in (tmp_path / "cache").glob("*.json"):
        path.write_text(corrupt(path.read_text()))
    with caplog.at_level(logging.WARNING):
        assert plain(case()) == plain(first)
    assert len(trained) == 6
    assert "cannot be used" in caplog.text


def test_damaged_snapshots_are_trained_again(case, trained, tmp_path):
    first = case()
    trained.clear()
    for path in (tmp_path / "cache").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert plain(case()) == plain(first)
    assert trained == ["hold", "hold"]


def test_a_cache_that_cannot_be_written_does_not_stop_the_evaluation(case, trained, tmp_path, caplog):
    (tmp_path / "cache").write_text("")
    assert case().curves
    assert "This evaluation continues" in caplog.text


def test_without_a_folder_nothing_is_stored(case, trained, tmp_path):
    case(cache_dir=None)
    assert not (tmp_path / "cache").exists()
