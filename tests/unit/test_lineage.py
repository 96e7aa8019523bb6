"""A lineage is a graph without silent gaps: missing links are in the tree, in the figure, and fail the check."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from metaopt.core.errors import InvalidConfig, LineageError
from metaopt.figures import rendered
from metaopt.operations.lineage import Lineage, Node
from metaopt.operations.lineage_files import LineageConfig, read_lineage, show_lineage
from metaopt.operations.validation import validate
from metaopt.operations.validation.records import passed_checks, write_records
from metaopt.trajectories import Recorder, Trajectory
from metaopt.trajectories.checkpoint import save_checkpoint
from metaopt.trajectories.ledger_entry import TrainingFacts, sidecar_path
from metaopt.trajectories.origin import ORIGIN_FILE, Generator, Origin, Parent, data_set, write_origin
from metaopt.weights.layout import Layout

MADE = Generator("train-target", "0.2.0", "a" * 32)
DATA = Node("data set", "digits", "d" * 32, replace(MADE, command="task digits"))


def chain(count=1, **changes) -> Lineage:
    """A version from one checkpoint of some trajectories; `changes` are those of the first trajectory."""
    trajectories = [Node("trajectory", f"run/seed_{n}", f"{n}" * 32, MADE, (DATA.key,)) for n in range(count)]
    trajectories[0] = replace(trajectories[0], **changes)
    checkpoint = Node("checkpoint", "run, step 4", "c" * 64, MADE, tuple(each.key for each in trajectories))
    model = Node("model", "models:/digits/3", "", MADE, (checkpoint.key,), "the registry")
    return Lineage(model.key, {each.key: each for each in (model, checkpoint, *trajectories, DATA)})


def test_the_tree_leads_from_the_version_to_the_data():
    assert chain(2).tree().splitlines() == [
        "model models:/digits/3, by train-target, metaopt 0.2.0, configuration aaaaaaaa, in the registry",
        "└─ checkpoint run, step 4, cccccccccccc, by train-target, metaopt 0.2.0, configuration aaaaaaaa",
        "   ├─ trajectory run/seed_0, 000000000000, by train-target, metaopt 0.2.0, configuration aaaaaaaa",
        "   │  └─ data set digits, dddddddddddd, by task digits, metaopt 0.2.0, configuration aaaaaaaa",
        "   └─ trajectory run/seed_1, 111111111111, by train-target, metaopt 0.2.0, configuration aaaaaaaa",
        "      └─ data set digits, as above",
    ]
    assert chain().problems() == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"missing": "there is no folder x", "parents": ()}, "there is no folder x"),
        ({"generator": None}, "it does not say what made it"),
        ({"parents": ()}, "it names no parents"),
    ],
)
def test_a_missing_link_is_named_and_shown(change, problem):
    lineage = chain(2, **change)
    assert lineage.problems() == [f"trajectory run/seed_0 (000000000000), parent of checkpoint run, step 4: {problem}"]
    assert f"MISSING LINK: {problem}" in lineage.tree()
    assert problem in str([node.to_mapping() for node in lineage])


def test_validation_is_shown():
    lineage = chain(validation={"level": "standard", "checks": {"digests": 1}})
    assert "validated: standard" in lineage.tree()


def test_a_validation_counts_until_the_file_changes(tmp_path):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"epoch": 3}, {})
    assert passed_checks(path) is None
    (record,) = write_records(validate([path], "quick"))
    assert passed_checks(path)["level"] == "quick"
    record.write_text("[" * 99_999)
    assert passed_checks(path) is None
    write_records(validate([path], "quick"))
    save_checkpoint(path, {"epoch": 4}, {})
    assert passed_checks(path) is None


@pytest.mark.parametrize("count", [1, 12])
def test_the_figure_shows_each_kind_and_what_is_missing(count):
    svg = rendered(chain(count, missing="there is no folder x").figure())["svg"].decode()
    for text in ("checkpoint", "trajectory, missing", "data set", "there is no"):
        assert f">{text}" in svg, text
    assert (">11 trajectories" in svg) == (count == 12)


def with_controller() -> Lineage:
    """A version from a checkpoint that was continued; of trajectories with random seeds, a policy and weights."""
    weights = Node("weight file", "base", "e" * 64)
    first = Node("checkpoint", "controller, step 9", "1" * 64, MADE, (DATA.key,))
    policy = Node("model", "models:/controller/1", "", MADE, (first.key,))
    used = (DATA.key, weights.key, policy.key)
    made = [replace(MADE, config=f"{n}" * 64) for n in range(8)]
    trajectories = [Node("trajectory", f"run/seed_{n}", f"{n}" * 32, each, used) for n, each in enumerate(made)]
    keys = tuple(each.key for each in trajectories)
    old = Node("checkpoint", "run, step 4", "c" * 64, MADE, keys)
    new = Node("checkpoint", "run, step 8", "d" * 64, MADE, (*keys, old.key))
    model = Node("model", "models:/digits/3", "", MADE, (new.key,))
    nodes = (model, new, old, *trajectories, policy, first, weights, DATA)
    return Lineage(model.key, {each.key: each for each in nodes})


def test_weight_files_begin_a_lineage_and_trajectories_of_random_seeds_are_one_box():
    lineage = with_controller()
    assert lineage.problems() == []
    columns, links = lineage._boxes()
    assert [[box.label for box in column] for column in columns] == [
        ["data set"],
        ["checkpoint"],
        ["weight file", "model"],
        ["8 trajectories"],
        ["checkpoint", "checkpoint"],
        ["model"],
    ]
    assert len(links) == 9
    figure = lineage.figure()
    assert figure.get_figwidth() > 9  # so that texts of six columns can be read
    assert ">8 trajectories" in rendered(figure)["svg"].decode()


def test_a_circle_of_forged_origins_ends():
    nodes = [Node("checkpoint", name, name * 64, MADE, (f"{kind} {other} {other * 64}",))
             for name, kind, other in (("a", "model", "b"), ("c", "checkpoint", "a"))]  # fmt: skip
    nodes.append(Node("model", "b", "b" * 64, MADE, (nodes[0].key,)))
    lineage = Lineage(nodes[1].key, {each.key: each for each in nodes})
    assert "as above" in lineage.tree()
    assert rendered(lineage.figure())["png"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A trajectory with an origin, and a checkpoint that was made from it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "trajectories" / "run" / "seed_0"
    model = nn.Linear(2, 1)
    with Recorder(folder, {"task": "digits"}, Layout.of(model)) as recorder:
        recorder.record(model, 0, 0, {})
    write_origin(folder, Origin(MADE, (data_set("digits", {}, "d" * 32),)))
    parent = Parent("trajectory", "run/seed_0", Trajectory.open(folder).digest)
    facts = TrainingFacts("optimizer", "run", None, 4, {}, Origin(replace(MADE, command="train-optimizer"), (parent,)))
    save_checkpoint(Path("checkpoints/run/net_epoch_0.safetensors"), {"w": torch.ones(2)}, {}, facts)
    return tmp_path


CHECKPOINT = "checkpoints/run/net_epoch_0.safetensors"


def read(source=CHECKPOINT):
    return read_lineage(source, Path("checkpoints"), Path("trajectories"))


def test_a_checkpoint_is_followed_to_its_data(files):
    lineage = read()
    assert [node.kind for node in lineage] == ["checkpoint", "trajectory", "data set"]
    assert lineage.problems() == []
    assert [node.kind for node in read("trajectories/run/seed_0")] == ["trajectory", "data set"]


def test_the_drawing_is_two_files(files):
    drawn = show_lineage(LineageConfig(model=CHECKPOINT, check=True, output=Path("chain.png")))
    assert drawn.drawings == [Path("chain.svg"), Path("chain.png")]
    assert all(path.stat().st_size > 1000 for path in drawn.drawings)
    assert show_lineage(LineageConfig(model=CHECKPOINT)).drawings[0] == Path("reports/lineage/run-step-4.svg")


def remove_trajectory(folder):
    shutil.rmtree(folder / "trajectories")


def record_again(folder):
    remove_trajectory(folder)
    place = folder / "trajectories" / "run" / "seed_0"
    model = nn.Linear(3, 1)
    with Recorder(place, {"task": "digits"}, Layout.of(model)) as recorder:
        recorder.record(model, 0, 0, {})


def remove_origin(folder):
    (folder / "trajectories" / "run" / "seed_0" / ORIGIN_FILE).unlink()


def damage_origin(folder):
    path = folder / "trajectories" / "run" / "seed_0" / ORIGIN_FILE
    path.write_text(path.read_text().replace("digits", "digots"))


def remove_sidecar(folder):
    sidecar_path(folder / CHECKPOINT).unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_trajectory, "there is no folder trajectories/run/seed_0, and it names no run"),
        (record_again, "trajectories/run/seed_0 has other contents, and it names no run"),
        (remove_origin, "trajectory run/seed_0 .*: it does not say what made it"),
        (damage_origin, r"origin\.json is damaged"),
        (remove_sidecar, "cannot read .*json"),
    ],
)
def test_the_check_fails_for_each_missing_link(files, change, message):
    change(files)
    assert "MISSING LINK" in read().tree()
    with pytest.raises(LineageError, match=f"lacks 1 link: .*{message}"):
        show_lineage(LineageConfig(model=CHECKPOINT, check=True))


def test_what_does_not_exist_is_an_error(files):
    with pytest.raises(LineageError, match="nothing at 'nothing'; expected models:/"):
        read("nothing")
    with pytest.raises(InvalidConfig, match="nothing is given"):
        show_lineage(LineageConfig())
