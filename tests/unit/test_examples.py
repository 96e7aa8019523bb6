"""Every usage example in a docstring runs.

An example is an indented block of a public docstring that begins with an import. Its working folder has an MLflow store
and four short trajectories of an MLP on digits, both in `trajectories/digits/` and in `trajectories/target/`.
"""

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import metaopt
from metaopt import workflows
from metaopt.nowcast.policy import NowcastPolicy
from metaopt.optimizers import build_optimizer
from metaopt.weights.averaging import ExponentialMovingAverage

ROOT = Path(metaopt.__file__).parent
BLOCK = re.compile(r"(?:\A|(?<=\n\n)) {4}(?:import|from) .*\n(?:(?: {4}.*)?\n)*")
WITHOUT_EXAMPLE = {"MetaoptError"}
"""Public names that users do not call."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef


def public_parts(node: ast.AST, name: str) -> Iterator[tuple[str, Documented]]:
    """A module, class or function and all public ones that it defines, each with its dotted name."""
    if isinstance(node, Documented):
        yield name, node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield from public_parts(child, f"{name}.{child.name}")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def examples() -> dict[str, str]:
    """The code of each example by the dotted name of what it documents."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        for name, node in public_parts(ast.parse(path.read_text(encoding="utf-8")), module_name(path)):
            blocks = BLOCK.findall((ast.get_docstring(node) or "") + "\n")
            if blocks:
                found[name] = "\n".join(map(dedent, blocks))
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with four short trajectories; the learning rates differ."""
    from metaopt.core.tracker import SilentTracker
    from metaopt.recording.config import TrainTargetConfig
    from metaopt.recording.record import train_targets

    folder = tmp_path_factory.mktemp("recorded")
    config = TrainTargetConfig(
        run_name="digits",
        target_model="MLP",
        target_options={"widths": [8]},
        lr="1e-3:4e-3",
        runs=4,
        epochs=2,
        snapshot_every=5,
        trajectory_dir=folder,
        checkpoint_dir=folder / "checkpoints",
    )
    train_targets(config, SilentTracker())
    return folder / "digits"


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.usefixtures("decorated_blueprints")
def test_an_example_runs(name, recorded, store):
    for run_name in ("digits", "target"):
        shutil.copytree(recorded, store / "trajectories" / run_name)
    exec(compile(EXAMPLES[name], name, "exec"), {"__name__": "example"})


@pytest.mark.parametrize("name", workflows.__all__)
def test_every_workflow_has_an_example(name):
    workflow = getattr(workflows, name)
    assert isinstance(workflow, type) or f"{workflow.__module__}.{name}" in EXAMPLES


@pytest.mark.parametrize(
    "thing", [NowcastPolicy, ExponentialMovingAverage, build_optimizer], ids=lambda each: each.__name__
)
def test_it_has_an_example(thing):
    assert {
        f"{thing.__module__}.{thing.__name__}",
        thing.__module__,
        thing.__module__.rpartition(".")[0],
    } & EXAMPLES.keys()


@pytest.mark.parametrize("name", sorted({*metaopt.__all__, *workflows.__all__} - WITHOUT_EXAMPLE))
def test_every_public_name_is_used_in_an_example(name):
    assert any(re.search(rf"\b{name}\b", code) for code in EXAMPLES.values())


def test_what_is_not_code_is_no_example():
    assert BLOCK.findall("A sum.\n\n    w = a + b\n\nArgs:\n    imports: what from.\n") == []
    assert BLOCK.findall("A call.\n\n    import a\n\n    a.b()\n\nArgs:\n    c: d.\n") == [
        "    import a\n\n    a.b()\n\n"
    ]
