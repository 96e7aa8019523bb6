"""The digest of a configuration: what changes it, and what does not."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.core.config import Config, Options, Range, option
from metaopt.core.config_digest import config_digest
from metaopt.metatraining.config import TrainOptimizerConfig
from metaopt.recording.config import TrainTargetConfig


class ExampleConfig(Config):
    epochs: int = option(default=10, help="Epochs.")
    lr: Range = option(default=Range(1e-3, 1e-3), help="Rate.")
    options: Options = option(default={}, help="Options.")
    curriculum: Path | None = option(default=None, help="A file.")
    folder: Path = option(default=Path("runs"), help="A folder.", changes_result=False)


@given(st.dictionaries(st.text(min_size=1, max_size=5).filter(str.isalnum), st.integers() | st.text(max_size=5)))
def test_the_order_and_the_spelling_of_values_do_not_matter(options):
    reversed_options = dict(reversed(options.items()))
    first = ExampleConfig(options=options, lr="1e-3", epochs="10")
    assert config_digest(first) == config_digest(ExampleConfig(options=reversed_options, lr=0.001))


@pytest.mark.parametrize("change", [{"epochs": 11}, {"lr": "1e-3:2e-3"}, {"options": {"a": 1}}, {"curriculum": "a"}])
def test_what_changes_the_result_changes_the_digest(change):
    assert config_digest(ExampleConfig(**change)) != config_digest(ExampleConfig())


def test_a_file_counts_by_its_content(tmp_path):
    first, second = tmp_path / "one.yaml", tmp_path / "two.yml"
    first.write_text("stages: [{horizon: 40}]")
    second.write_text("# a comment\nstages:\n- horizon: 40\n")
    assert config_digest(ExampleConfig(curriculum=first)) == config_digest(ExampleConfig(curriculum=second))
    second.write_text("stages: [{horizon: 41}]")
    assert config_digest(ExampleConfig(curriculum=first)) != config_digest(ExampleConfig(curriculum=second))


def test_a_missing_or_damaged_file_counts_by_its_name(tmp_path):
    (tmp_path / "a.yaml").write_text("{")
    missing = ExampleConfig(curriculum="elsewhere/a.yaml")
    assert config_digest(ExampleConfig(curriculum=tmp_path / "a.yaml")) == config_digest(missing)


@pytest.mark.parametrize(
    ("config", "same"),
    [
        (
            TrainTargetConfig(),
            {"device": "cpu", "threads": 2, "workers": 2, "engine": "ray", "data_dir": Path("/data")},
        ),
        (TrainTargetConfig(), {"resume": True, "overwrite": True, "trajectory_dir": Path("t"), "trust_config": True}),
        (TrainOptimizerConfig(), {"resume_from": "runs:/1", "overwrite": True, "checkpoint_dir": Path("c")}),
    ],
)
def test_where_and_how_a_training_runs_does_not_matter(config, same):
    for name, value in same.items():
        assert config_digest(replace(config, **{name: value})) == config_digest(config), name
    assert config_digest(replace(config, seed=1)) != config_digest(config)
