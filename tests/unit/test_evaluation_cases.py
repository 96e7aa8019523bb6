"""The case files of the repository are valid and follow the protocol."""

from pathlib import Path

import pytest

from metaopt.core.config import read_config_file
from metaopt.core.errors import InvalidConfig
from metaopt.evaluation.config import EvaluateConfig
from metaopt.targets import get_target_model, target_config
from metaopt.tasks import TASKS, task_config

CASES = sorted((Path(__file__).parents[2] / "benchmarks" / "cases").glob("*.yaml"))
FACTS = {
    "cnn": {"in_features": 3072, "in_channels": 3, "image_size": 32, "classes": 10},
    "mlp": {"in_features": 8, "classes": 3},
    "transformer": {"vocab_size": 65, "block_size": 64},
}
"""The facts of a task of each kind."""


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_case_follows_the_protocol_and_its_names_exist(path):
    config = EvaluateConfig.from_mapping(read_config_file(path))
    assert len(config.learning_rates) >= 3
    assert config.seeds >= 5
    assert config.baselines == "all"
    assert config.controls
    assert config.data_dir is None, "data_dir depends on the machine: give it on the command line"
    task_config(config.task, config.task_options)
    facts = FACTS[TASKS.get(config.task).topology]
    assert get_target_model(config.target_model, **target_config(config.target_model, facts, config.target_options))


def test_each_kind_of_data_has_a_case():
    assert {path.stem for path in CASES} >= {
        "digits_mlp",
        "images_convnet",
        "mnist_convnet",
        "table_mlp",
        "text_gpt",
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": "MLP"}, "unknown parameter 'target'"),
        ({"baselines": "some"}, "baselines is 'some'"),
        ({"learning_rates": [0.1, -1]}, "expected more than 0"),
        ({"learning_rates": "fast"}, "expected numbers such as"),
        ({"min_cosine": 2}, "expected a cosine"),
    ],
)
def test_a_case_with_invalid_values_is_rejected(wrong, message):
    with pytest.raises(InvalidConfig, match=message):
        EvaluateConfig.from_mapping(wrong)
