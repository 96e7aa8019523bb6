"""The built-in optimizers: small, loadable offline, and faster on an unseen training."""

from importlib import resources

import pytest

import metaopt
from metaopt.generative.files import BUILTIN
from metaopt.metatraining.mixture import read_mixture
from metaopt.metatraining.paired_speedup import paired_speedup
from metaopt.nowcast import NowcastPolicy

PLACE = resources.files("metaopt") / "builtin"
UNSEEN = """
digits: {task: digits, target_model: MLP, target_options: {widths: [32, 32]}, lr: "1e-3:1e-3", rows: 4}
"""


def test_the_files_are_small_and_have_a_card():
    assert sum((PLACE / file).stat().st_size for file in BUILTIN.values()) <= 4 * 2**20
    card = (PLACE / "README.md").read_text(encoding="utf-8")
    assert all(f"bash benchmarks/builtin/{script}.sh" in card for script in ("make", "fast"))


@pytest.mark.parametrize("name", BUILTIN)
def test_a_built_in_optimizer_speeds_up_an_unseen_training(tmp_path, name):
    (tmp_path / "unseen.yaml").write_text(UNSEEN, encoding="utf-8")
    (component,) = read_mixture(tmp_path / "unseen.yaml")
    optimizer = metaopt.load_optimizer(name)
    assert optimizer.averaging == 0.98
    result = paired_speedup(optimizer, component, 400, NowcastPolicy(every=40, stride=20), seed=5)
    assert result["speedup"] > 1.05
    assert result["final_log_ratio"] < 0
