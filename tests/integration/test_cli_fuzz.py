"""Random command lines and configuration files end with an exit code and a short message, never with a stack trace.

The calls end before work begins: each workflow is replaced by what it does first, which builds the data, the network
and the optimizers from the configuration.
"""

import json
import random
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from metaopt import workflows
from metaopt.cli import COMMANDS, cli
from metaopt.cli.commands import BUILDERS
from metaopt.core.errors import MetaoptError
from metaopt.evaluation.paired_runs import RunSetup
from metaopt.generative import GENERATIVE_OPTIMIZERS, get_optimizer_model
from metaopt.metatraining.mixture import read_mixture
from metaopt.optimizers import BASE_OPTIMIZERS
from metaopt.recording.record import prepared_recording
from metaopt.reinforcement.problem import Problem
from metaopt.targets import TARGETS
from metaopt.tasks import TASKS, load_task, task_config
from metaopt.tracking import load_policy
from metaopt.trajectories import Trajectory
from metaopt.workflows.train_optimizer import _promotion_case

WORDS = [
    *("", " ", "none", "null", "true", "no", "on", "yes", "0", "-0", "1", "2", "3", "-1", "0.5", "1.5", "1e-3", "010"),
    *("inf", "-inf", "nan", "1e30", "1e308", "1e400", "-1e400", "1:2", "2:1", ":", "1:", ":1", "1:inf", "0:0", "1_0"),
    *(str(2**63 - 1), str(2**63), str(2**64), str(10**30), "9" * 5000, "0x10", "١", "1,2", "1,inf", "[1", "(2)", ","),
    *("2024-01-01", "12:30:45", "!!python/name:os.system", "*a", "&a", "{a: 1}", "{a: {b: 1}}", "- a", "[" * 1000),
    *("a=1", "a=", "=1", "a=1 a=2", "a=[", "a=" + "[" * 1000, "a=*x", "a=2024-01-01", "a={b: 1}", "1=2", "a-b=1"),
    *("widths=[8]", "widths=8", "widths=inf", "n_layer=0", "betas=[0.9]", "lr=1", "weight_decay=no", "image_size=1e30"),
    *("ü", "\udcff", "\x00", "\n", "\x1b[31m", "%s", "{}", "x" * 300, "x" * 100_000, "a/b", "../..", "/", "~", "."),
    *("/dev/null", "/dev/zero", "nowhere/at/all", "models:/", "models:/x@y", "runs:/" + "0" * 32, "builtin", "(", "*"),
    *("os:system", "torch.nn:Module", "torch.nn:Linear", "torch:nn", "nowhere:x", ":", "x:", ":x", "torch.nn:nothing"),
    *("torchvision:x", "transformers:x", "--", "-", "--x", "-1e-3", "mixture.yaml", "case.yaml"),
    *TASKS.table, *TARGETS.table, *GENERATIVE_OPTIMIZERS.table, *BASE_OPTIMIZERS.table,
]  # fmt: skip

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    1.5,
    1e300,
    10**400,
    [],
    {},
    [1, 2],
    [[1]],
    {"a": 1},
    {"a": {"b": [1]}},
    {"": 1},
]
"""What a JSON file may contain besides texts."""

PLUG_IN_FLAGS = [
    "widths",
    "n_layer",
    "n_embd",
    "image_size",
    "shift",
    "dim",
    "depth",
    "history",
    "label",
    "straight",
    "x",
]


def known_flags(command: str) -> list[str]:
    """The flags of a command, with some of its plug-ins and some that it lacks."""
    parameters = BUILDERS[command](COMMANDS[command]).params
    own = [flag for parameter in parameters if isinstance(parameter, click.Option) for flag in parameter.opts]
    return [*own, *own, *(f"--{name.replace('_', '-')}" for name in PLUG_IN_FLAGS), "-h"]


def command_line(draw: random.Random, folder: Path) -> list[str]:
    """A random call: a command, some flags with values, and often a configuration file."""
    command = draw.choice([name for name in COMMANDS if name not in ("register", "worker")])
    flags = known_flags(command)
    words = [command]
    for _ in range(draw.randint(0, 4)):
        flag = draw.choice(flags)
        value = draw.choice(WORDS)
        spelling = flag.replace("-", "_") if draw.random() < 0.1 else flag
        words += draw.choices([[spelling, value], [f"{spelling}={value}"], [spelling]], [8, 3, 1])[0]
    if draw.random() < 0.4 and command != "list":
        words += ["--config", str(configuration(draw, flags, folder))]
    if command == "list" or draw.random() < 0.1:
        words.append(draw.choice([*WORDS, "tasks", "targets", "optimizers", "generative-optimizers"]))
    return words


def configuration(draw: random.Random, flags: list[str], folder: Path) -> Path:
    """A file of random parameters, as JSON, as YAML, or as YAML with raw text for values."""
    names = [draw.choice(flags).lstrip("-").replace("-", draw.choice("-_")) for _ in range(draw.randint(0, 3))]
    values = {name: draw.choice([*WORDS, *VALUES]) for name in names}
    path = folder / f"config.{draw.choice(['json', 'yaml'])}"
    raw = "".join(f"{name}: {draw.choice(WORDS)}\n" for name in [*names, *names[:1]])
    text = draw.choice([json.dumps(values), json.dumps(values), raw])
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def begin_recording(config) -> None:
    with prepared_recording(config):
        pass


def begin_training(config) -> None:
    get_optimizer_model(config.optimizer_model, **config.optimizer_options)
    _promotion_case(config)
    if config.mixture is not None:
        read_mixture(config.mixture, config.data_dir, trusted=config.trust_config)


def begin_controller(config) -> None:
    Problem(config)


def begin_comparison(config) -> None:
    load_policy(config.controller or "none")


def begin_evaluation(config) -> None:
    task = load_task(config.task, **task_config(config.task, config.task_options, config.data_dir))
    setup = RunSetup(config, task, config.seed)
    setup.base_optimizer(setup.build())
    assert config.measured_steps


def begin_main(config) -> None:
    begin_recording(config.target())
    begin_training(config.optimizer())
    begin_evaluation(config.evaluation(Path("x")))


def begin_generation(config) -> None:
    Trajectory.open(config.trajectory)


class Began(MetaoptError):
    """The work would begin now."""


@pytest.fixture
def stopped_before_work(store, monkeypatch):
    """Each workflow ends before its work begins."""

    def stopping(begin):
        def workflow(config):
            begin(config)
            raise Began("work would begin")

        return workflow

    for name, begin in {
        "record": begin_recording,
        "train": begin_training,
        "train_policy": begin_controller,
        "evaluate": begin_evaluation,
        "evaluate_policy": begin_comparison,
        "main": begin_main,
        "generate": begin_generation,
    }.items():
        monkeypatch.setattr(workflows, name, stopping(begin), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(store / "cache"))
    (store / "mixture.yaml").write_text("a: {task: digits, target_options: 'widths=[8]'}\n")
    (store / "case.yaml").write_text("task: digits\nsteps: 40\n")
    return store


def failures(seed: int, count: int, folder: Path) -> list[str]:
    """The calls among `count` random ones that end in a stack trace, or with a long message."""
    draw, found = random.Random(seed), []
    for _ in range(count):
        words = command_line(draw, folder)
        result = CliRunner().invoke(cli, words)
        expected = result.exception is None or isinstance(result.exception, SystemExit)
        if not expected or result.exit_code not in (0, 1, 2) or len(result.output) > 20_000:
            found.append(f"{[word[:80] for word in words]}: exit code {result.exit_code}, {result.exception!r:.300}")
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # old names of flags
@pytest.mark.parametrize("seed", range(3))
def test_no_random_call_ends_in_a_stack_trace(stopped_before_work, seed):
    assert failures(seed, 60, stopped_before_work) == []


LARGEST = str(2**63 - 1)


@pytest.mark.parametrize(
    "words",
    [
        ["train-target", "--runs", LARGEST],
        ["train-target", "--threads", LARGEST],
        ["train-target", "--threads", "1000000"],
        ["train-target", "--image-size", LARGEST],
        ["train-target", "--target-model", "MLP", "--widths", LARGEST],
        ["train-target", "--target-model", "GPT", "--n-layer", LARGEST],
        ["train-target", "--target-model", "VisionTransformer", "--n-layer", LARGEST],
        ["train-target", "--batch-size", "1e400"],
        ["train-target", "--seed", "1e30"],
        ["evaluate", "--steps", LARGEST],
        ["evaluate", "--seeds", LARGEST, "--every", "inf"],
        ["main", "--runs", LARGEST],
        ["main", "--steps", LARGEST],
        ["train-optimizer", "--history", LARGEST],
        ["train-optimizer", "--depth", LARGEST],
        ["train-optimizer", "--hidden", LARGEST],
        ["train-optimizer", "--num-latents", LARGEST],
        ["train-target", "--target-model", "torch.nn:Module"],
        ["train-target", "--target-model", "GPT", "--vocab-size", "3"],
        ["train-target", "--target-model", "ConvNet", "--in-channels", "3"],
        ["train-target", "--target-model", "torch.nn:Linear", "--target-options", "in_features=3 out_features=2"],
        ["evaluate", "--target-model", "GPT"],
        ["evaluate", "--target-model", "MLP", "--target-options", "classes=2"],
        ["main", "--target-model", "GPT"],
        ["train-target", "--target-model", "x" * 100_000],
        ["train-target", "--base-optimizer", "Adam", "--base-optimizer-options", "betas=[0.9]"],
        ["train-target", "--target-options", "widths=[8]", "--target-model", "MLP", "--widths", "x"],
    ],
    ids=lambda words: " ".join(words)[:60],
)
@pytest.mark.usefixtures("stopped_before_work")
def test_an_extreme_value_is_an_error_at_once(words):
    start = time.process_time()
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1, repr(result.exception)
    assert isinstance(result.exception, SystemExit)
    assert "work would begin" not in result.output
    assert len(result.output) < 1500
    assert time.process_time() - start < 30


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_none_of_thousands_of_random_calls_ends_in_a_stack_trace(stopped_before_work):
    assert failures(1234, 5000, stopped_before_work) == []
