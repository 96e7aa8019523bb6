"""The optimizer that comes with the package: small, loadable without a network, and of use where it has never been."""

from importlib import resources

import metaopt
from metaopt.training.mixture import read_mixture
from metaopt.training.race import race

PLACE = resources.files("metaopt") / "builtin"
UNSEEN = """
digits: {task: digits, target_model: MLP, target_options: {widths: [32, 32]}, lr: "1e-3:1e-3", rows: 4}
"""


def test_it_is_small_and_has_a_card():
    assert (PLACE / "optimizer.safetensors").stat().st_size <= 4 * 2**20
    card = (PLACE / "README.md").read_text(encoding="utf-8")
    assert "bash benchmarks/builtin/make.sh" in card


def test_it_makes_a_training_faster_that_it_has_never_seen(tmp_path):
    (tmp_path / "unseen.yaml").write_text(UNSEEN, encoding="utf-8")
    (ingredient,) = read_mixture(tmp_path / "unseen.yaml")
    optimizer = metaopt.load_optimizer("builtin")
    assert optimizer.averaging == 0.98
    result = race(optimizer, ingredient, steps=400, every=40, stride=20, seed=5)
    assert result["speedup"] > 1.05
    assert result["final_log_ratio"] < 0
