"""The probe `dead-units`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..core.devices import device_of
from ..tasks import Batch, Task
from .base import Probe, ProbeResult, Row
from .running import Hook, floats, slices, watching

ACTIVATIONS = (
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus),
    *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
)
"""Functions after which a unit with a negative input counts as inactive."""

MODULES = ("AccurateGELUActivation", "FastGELUActivation", "NewGELUActivation", "QuickGELUActivation")
"""Modules of transformers that compute such a function themselves."""


class DeadUnits(Probe):
    """The share of hidden units that are never active on the examples, before and after."""

    how_to_read = """A unit is a feature behind ReLU, GELU, SiLU or a similar function, called as a module or as a
function; of images it is a channel. It is dead if it is not above 0 for any example, position or pixel. A dead unit
behind ReLU has no gradient on these examples and usually stays dead; behind smooth functions it can return. More
examples find fewer dead units, so compare only reports of equal `examples`. The values are shares of all units,
the rows count units."""

    def reason(self, model: nn.Module, task: Task) -> str | None:
        """It needs activations in the forward pass."""
        found = _active(model, task.splits["train"][:2].to(device_of(model)), task)
        return None if found else "no ReLU, GELU, SiLU or similar function is called in its forward pass"

    def measure(self, before: nn.Module, after: nn.Module, task: Task, examples: Batch) -> ProbeResult:
        """Shares for each activation; the values are those of all units together."""
        first, second = (_active(model, examples, task) for model in (before, after))
        rows: list[Row] = []
        for name, was in first.items():
            alive = second[name]
            counts = torch.stack([(~was).sum(), (~alive).sum(), (was & ~alive).sum(), (~was & alive).sum()])
            dead = dict(zip(("dead_before", "dead_after", "died", "revived"), map(round, floats(counts)), strict=True))
            rows.append({"activation": name, "units": len(was), **dead})
        units, total = sum(row["units"] for row in rows), lambda name: sum(row[name] for row in rows)
        shares = {name: total(name) / units for name in ("dead_before", "dead_after", "died", "revived")}
        return ProbeResult(shares, rows)


def _active(model: nn.Module, examples: Batch, task: Task) -> dict[str, Bool[Tensor, " units"]]:
    """Which units of each activation are above 0 for some example."""
    found: dict[str, Tensor] = {}
    for batch in slices(examples, task):
        with _named_calls(model) as name_of, _Activations(name_of) as seen, watching(seen.hooks(model)):
            model(batch.inputs)
        for name, active in seen.found.items():
            found[name] = found[name] | active if name in found else active
    return found


class _Activations(TorchFunctionMode):
    """Observes the outputs of activation functions."""

    def __init__(self, name_of: Callable[[], str]) -> None:
        super().__init__()
        self.found: dict[str, Tensor] = {}
        self._name_of = name_of

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function; in it, the mode is off, so that a function within a function counts once."""
        output = func(*args, **(kwargs or {}))
        if func in ACTIVATIONS:
            self._observe(self._name_of(), output)
        return output

    def hooks(self, model: nn.Module) -> dict[nn.Module, Hook]:
        """Hooks that observe the outputs of activations that call none of these functions."""
        names = {module: name for name, module in model.named_modules() if type(module).__name__ in MODULES}
        return {module: partial(self._after, name) for module, name in names.items()}

    def _after(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._observe(name, output)

    def _observe(self, name: str, output: Tensor) -> None:
        features = output.movedim(1, -1) if output.ndim > 3 else output
        number = 1
        while (key := name if number == 1 else f"{name} (call {number})") in self.found:
            number += 1
        self.found[key] = (features > 0).flatten(0, -2).any(0)


@contextmanager
def _named_calls(model: nn.Module) -> Iterator[Callable[[], str]]:
    """Gives a function that tells which module runs: its name, or the type of the network for the network itself."""
    stack: list[str] = []
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(partial(_enter, stack, name or type(model).__name__)))
        handles.append(module.register_forward_hook(partial(_leave, stack), always_call=True))
    try:
        yield lambda: stack[-1] if stack else type(model).__name__
    finally:
        for handle in handles:
            handle.remove()


def _enter(stack: list[str], name: str, module: nn.Module, inputs: Any) -> None:
    stack.append(name)


def _leave(stack: list[str], module: nn.Module, inputs: Any, output: Any) -> None:
    stack.pop()
