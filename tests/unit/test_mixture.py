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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("periods: [1, 4]", "one in the mixture: Hope has levels with periods above 1, but live rounds update all"),
        ("periods: [1], carry_memory: true", "one in the mixture: Hope carries memories, which live rounds do not"),
        ("periods: [1]", None),
        ("memory: none, periods: [1, 1]", None),
    ],
)
def test_networks_that_live_rounds_would_train_differently_are_refused(tmp_path, options, message):
    text, path = tmp_path / "text.txt", tmp_path / "mixture.yaml"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 20, encoding="utf-8")
    task = f"task: text, data_dir: {text}, task_options: {{block_size: 8, order: stream}}"
    network = f"target_model: Hope, target_options: {{n_layer: 1, n_head: 1, n_embd: 4, chunk: 4, {options}}}"
    path.write_text(f"one: {{{task}, {network}}}", encoding="utf-8")
    if message is None:
        assert len(read_mixture(path)) == 1
    else:
        with pytest.raises(InvalidConfig, match=message):
            read_mixture(path)
