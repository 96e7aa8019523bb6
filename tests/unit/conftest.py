"""Fixtures of unit tests."""

import pytest

MIXTURE = """
mlp: {task: digits, target_model: MLP, target_options: {widths: [8]}, lr: "1e-3:1e-2", rows: 3}
cnn: {task: digits, target_model: ConvNet, target_options: {widths: [4], norm: batch}, rows: 2}
"""


@pytest.fixture
def mixture(tmp_path):
    """A mixture of an MLP and a CNN, as a YAML file."""
    path = tmp_path / "mixture.yaml"
    path.write_text(MIXTURE, encoding="utf-8")
    return path


@pytest.fixture
def mlp(mixture):
    """The component of the MLP."""
    from metaopt.metatraining.mixture import read_mixture

    return read_mixture(mixture)[0]
