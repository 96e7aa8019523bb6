"""A mixture is read from a YAML file; an invalid one raises and names its component."""

import pytest

from metaopt.core.errors import InvalidConfig, UnknownName
from metaopt.metatraining.mixture import read_mixture


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("one: {task: digit}", UnknownName, "one in the mixture: .*did you mean digits"),
        ("one: {task: digits, target_model: MPL}", UnknownName, "one in the mixture: .*did you mean MLP"),
        ("one: {learning_rate: 1}", InvalidConfig, "one in the mixture: unknown parameter 'learning_rate'"),
        ("one: {target_model: GPT}", InvalidConfig, "one in the mixture: GPT does not fit the data of Digits"),
        ("one: 3", InvalidConfig, "expected names with values"),
        ("[1, 2]", InvalidConfig, "expected names with values"),
    ],
)
def test_an_invalid_mixture_raises_and_names_its_component(tmp_path, text, error, message):
    path = tmp_path / "mixture.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        read_mixture(path)
