"""Registry of base optimizers: of `torch.optim`, of other packages, around a base optimizer, deep, and plug-ins."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TypeVar

import torch
from torch import nn

from ..core.errors import InvalidConfig, MetaoptError
from ..core.registry import Registry
from ..core.rng import isolated
from ..core.text import shortened, shown
from ..nested.levels import attach_levels
from ..weights.selection import trainable

_SCHEDULE_FREE = ("AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree")  # Defazio et al. 2024, arXiv:2405.15682
_SOAP = ("SOAP",)  # Vyas et al. 2024, arXiv:2409.11321
_AROUND_BASE = ("EMANesterov", "OuterNesterov", "PrimalAveraging")
_LEARNED = ("LearnedSOAP",)
_DEEP = ("DMGD", "DeltaGradientDescent", "DeltaMomentum", "M3", "MuonMemory", "PreconditionedMomentum")

L = TypeVar("L")

_Class = Callable[..., torch.optim.Optimizer]


def _table() -> dict[str, str]:
    base = torch.optim.Optimizer
    of_torch = [
        name
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, base) and kind is not base
    ]
    return {
        **{name: f"torch.optim:{name}" for name in of_torch},
        **{name: f"schedulefree:{name}" for name in _SCHEDULE_FREE},
        **{name: f"pytorch_optimizer:{name}" for name in _SOAP},
        **{name: f"metaopt.optimizers:{name}" for name in (*_AROUND_BASE, *_LEARNED, *_DEEP)},
    }


class _BaseOptimizers(Registry):
    def origin(self, name: str) -> str:
        """The package that provides an optimizer, with its version."""
        package = self._table.get(name, "metaopt").partition(":")[0].partition(".")[0]
        return super().origin(name) if package == "metaopt" else f"{package.replace('_', '-')} {version(package)}"


BASE_OPTIMIZERS = _BaseOptimizers("base optimizer", "metaopt.base_optimizers", _table())
"""Base optimizers by name; a plug-in adds a `torch.optim.Optimizer` in the group `metaopt.base_optimizers`."""


def without_momentum(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of Adam or its kin that leave out its momentum; those of other base optimizers as they are.

        without_momentum("Adam", {"betas": (0.8, 0.99)})  # {"betas": (0.0, 0.99)}

    Args:
        options: keyword arguments of the base optimizer that count for the rest.
    Raises:
        UnknownName: there is no such base optimizer.
    """
    defaults = {each.name: each.default for each in inspect.signature(BASE_OPTIMIZERS.get(name)).parameters.values()}
    if "betas" not in defaults:
        return dict(options)
    return {**options, "betas": (0.0, *tuple({**defaults, **options}["betas"])[1:])}


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Build a base optimizer by name.

        import torch
        from metaopt.optimizers import build_optimizer

        model = torch.nn.Linear(3, 2)
        optimizer = build_optimizer("AdamW", model.parameters(), lr=1e-3, options={"weight_decay": 0.1})

    Args:
        lr: learning rate.
        options: further keyword arguments of the optimizer; `metaopt list optimizers NAME` shows them.
    Returns: the optimizer, in training mode if it is schedule-free.
    Raises:
        UnknownName: there is no such optimizer; the message lists the nearest names.
        InvalidConfig: an unknown option, or an invalid value.
    """
    kind = BASE_OPTIMIZERS.get(name)
    is_optimizer = isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    if not is_optimizer:
        raise InvalidConfig(f"{name} is {shown(kind)}; expected a subclass of torch.optim.Optimizer")
    parameters = list(parameters)
    try:
        _check_options(kind, options)
        _try_a_step(kind, parameters[0] if parameters else torch.empty(0), lr, options)
        optimizer: torch.optim.Optimizer = kind(parameters, lr=lr, **options)
    except Exception as error:  # the exception types differ between optimizers
        raise InvalidConfig(
            f"{name} does not take lr={shown(lr)} with {shown(dict(options))}: {shortened(str(error))}. "
            "Check base_optimizer_options"
        ) from error
    if hasattr(optimizer, "train"):
        optimizer.train()
    return optimizer


def optimizer_for(model: nn.Module, name: str, lr: float, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Build a base optimizer for the trainable parameters of a network, which respects the levels of that network.

    Raises:
        UnknownName, InvalidConfig: as for `build_optimizer`.
    """
    optimizer = build_optimizer(name, [parameter for _, parameter in trainable(model)], lr, options)
    attach_levels(model, optimizer)
    return optimizer


def optimizer_step(optimizer: torch.optim.Optimizer, closure: Callable[[], L]) -> L:
    """Take a step; returns the loss that the closure measured before it.

    Args:
        closure: computes the gradients, and returns the loss.
    Raises:
        InvalidConfig: the optimizer cannot work with these gradients, as SparseAdam with dense ones.
    """
    losses: list[L] = []

    def measured() -> L:
        losses.append(closure())
        return losses[-1]

    try:
        return optimizer.step(measured)  # type: ignore[arg-type,return-value]  # typed for closures that return floats
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        if not losses or isinstance(error, MetaoptError | torch.OutOfMemoryError):  # not an error of the step
            raise
        raise InvalidConfig(
            f"{type(optimizer).__name__} cannot take a step ({shortened(str(error))}); choose another base optimizer, "
            "or other options"
        ) from error


def _check_options(kind: _Class, options: Mapping[str, Any]) -> None:
    """Check that a class of `pytorch_optimizer` has these options: it would silently ignore others.

    Raises:
        TypeError: it does not.
    """
    known = inspect.signature(kind).parameters
    unknown = [name for name in options if name not in known]
    if unknown and kind.__module__.startswith("pytorch_optimizer."):
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}")


def _try_a_step(kind: _Class, like: torch.Tensor, lr: float, options: Mapping[str, Any]) -> None:
    """Take a step on four weights: some invalid options, such as `betas=[0.9]`, are noticed at the first step only.

    Args:
        like: a weight of the device and the dtype to use.
    Raises:
        Exception: the step fails for dense gradients, and for sparse ones.
    """
    gradient = torch.ones(2, 2, dtype=like.dtype, device=like.device)
    with isolated():
        try:
            _step_on(gradient, kind, lr, options)
        except RuntimeError:  # SparseAdam
            _step_on(gradient.to_sparse(), kind, lr, options)


def _step_on(gradient: torch.Tensor, kind: _Class, lr: float, options: Mapping[str, Any]) -> None:
    weights = nn.Parameter(torch.zeros_like(gradient, layout=torch.strided))
    optimizer = kind([weights], lr=lr, **options)
    if hasattr(optimizer, "train"):
        optimizer.train()
    weights.grad = gradient
    optimizer.step(lambda: 0.0)


@contextmanager
def evaluation_mode(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put the weights for evaluation into the network while the block runs.

    A schedule-free optimizer computes gradients at the weights y and is evaluated at the weights x (Defazio et al.
    2024, arXiv:2405.15682); its `eval()` and `train()` exchange the two. Other optimizers leave the weights unchanged.
    """
    if not hasattr(optimizer, "eval"):
        yield
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    trained = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()  # type: ignore[attr-defined]
        with torch.no_grad():  # the exchange rounds: how often weights are evaluated must not change the training
            for parameter, value in zip(parameters, trained, strict=True):
                parameter.copy_(value)
