"""What a shell completes, known without importing what the commands need, which takes seconds; tests compare it.

Names of installed plug-ins are completed, too: entry points are read without importing what they name.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points

import click
from click.shell_completion import CompletionItem

FLAGS = {
    "main": "run-name task data-dir task-options target-model target-options lr runs target-epochs snapshot-every "
    "averaging objective optimizer-epochs pairs-per-epoch evaluation-lr seeds steps every horizons seed model-name "
    "overwrite config",
    "train-target": "run-name task data-dir task-options target-model target-options base-optimizer "
    "base-optimizer-options lr batch-size epochs snapshot-every snapshot-dtype averaging keep-last seed runs workers "
    "vectorize engine space resume overwrite checkpoint-every trajectory-dir checkpoint-dir device config",
    "train-optimizer": "run-name checkpoint-name optimizer-model optimizer-options start-from training-mode objective "
    "epochs rounds mixture warm-up inner-steps every stride straight batch-size pairs-per-epoch task-batch lr "
    "weight-decay average held-out seed data-dir trust-code resume-from overwrite checkpoint-every trajectory-dir "
    "checkpoint-dir model-name promote-on config",
    "evaluate": "optimizer task data-dir task-options target-model target-options base-optimizer "
    "base-optimizer-options lr learning-rates batch-size steps every stride horizons straight seed seeds "
    "evaluate-every guard-batch baselines controls seen cache-dir promote output config",
    "generate": "optimizer trajectory t-start t-end output overwrite config",
    "list": "",
}
"""The flags of each command."""

TASKS = ("cifar10", "csv", "digits", "fashion-mnist", "image-folder", "mnist", "text", "tinystories")
TARGETS = ("ConvNet", "GPT", "MLP", "ResNet18", "ResNet34", "TargetCNN", "VisionTransformer")
OPTIMIZERS = ("Average", "Hold", "Line", "PerceiverOptimizer", "Slopes")
KINDS = ("tasks", "targets", "base-optimizers", "optimizers")

_NAMES: Mapping[str, tuple[str, Sequence[str]]] = {
    "task": ("metaopt.tasks", TASKS),
    "target-model": ("metaopt.targets", TARGETS),
    "optimizer-model": ("metaopt.optimizers", OPTIMIZERS),
}
"""By flag: the entry points that add names, and our own names."""

_FOLDERS = ("data-dir", "trajectory-dir", "checkpoint-dir", "cache-dir", "seen", "trajectory")
_FILES = ("config", "mixture", "promote-on", "output", "resume-from", "start-from", "optimizer")

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def outline(name: str, everywhere: Sequence[click.Option]) -> click.Command:
    """A command that knows its flags, and does nothing.

    Args:
        everywhere: flags that every command takes.
    """
    params: list[click.Parameter] = [_option(flag) for flag in FLAGS[name].split()]
    if name == "list":
        params.append(click.Argument(["kind"], required=False, type=click.Choice(KINDS)))
    return click.Command(name, params=[*params, *everywhere], context_settings={"ignore_unknown_options": True})


def _option(flag: str) -> click.Option:
    if flag in _NAMES:
        return click.Option([f"--{flag}"], shell_complete=_names(*_NAMES[flag]))
    path = click.Path(file_okay=flag not in _FOLDERS) if flag in (*_FOLDERS, *_FILES) else None
    return click.Option([f"--{flag}"], type=path)


def _names(group: str, ours: Sequence[str]) -> Complete:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        known = sorted({*ours, *(point.name for point in entry_points(group=group))})
        return [CompletionItem(name) for name in known if name.lower().startswith(incomplete.lower())]

    return complete
