"""Budgets of adapters: how far each matrix of a network may change, relative to its own size."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import InvalidConfig, LayoutMismatch
from ..core.text import shown
from .aliases import WAN, AliasTable
from .lora import LowRank, adapters_of, described_adapters
from .merging import names_of, tensors_of

_PRECISE = torch.float64


class DeltaBudget:
    """Keeps the change of each adapted matrix within a share of it, by an exact projection after every step.

        import torch
        from metaopt import get_target_model
        from metaopt.adapters import DeltaBudget, insert_adapters

        model = get_target_model("MLP", in_features=4, widths=(8,))
        insert_adapters(model, {"method": "lora", "modules": ["layers.1"], "rank": 2, "alpha": 2.0})
        optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=100.0)
        budget = DeltaBudget(model, cap=0.25)
        budget.attach(optimizer)  # from now on
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(16, 4)).square().mean().backward()
            optimizer.step()
        assert max(budget.shares().values()) <= 0.25 * (1 + 1e-6)

    The share of a matrix W with the change ΔW = s B A is

        b = ‖ΔW‖_F / ‖W‖_F,     ‖ΔW‖_F² = s² tr(BᵀB AAᵀ),

    from two matrices of the size of the rank, without ΔW. Where b is above the cap, B becomes B · cap / b: then b is
    the cap. That is the nearest change of the same direction within the budget.

    The projection needs no other process: replicas of DistributedDataParallel have equal adapters before and after it.
    It waits for no device.

    Args:
        model: a network with adapters.
        cap: largest share; None for no limit.
        caps: largest shares by regular expressions on names of modules, the first that matches before `cap`.
        aliases: other spellings of names.
    Raises:
        InvalidConfig: the network has no adapters; a cap is not positive; or an expression does not compile, or matches
            no adapted matrix.
    """

    def __init__(
        self,
        model: nn.Module,
        cap: float | None,
        caps: Mapping[str, float] | None = None,
        aliases: AliasTable | None = WAN,
    ) -> None:
        adapters = list(adapters_of(model))
        if not adapters:
            raise InvalidConfig(f"{type(model).__name__} has no adapters; insert_adapters(model, …) inserts them")
        self.caps = _caps_of([each.module for each in adapters], cap, caps or {}, aliases)
        self._groups = _groups(adapters, self.caps)
        self._order = [each.module for each in adapters]

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Project after each step of an optimizer, which may be a `Nowcast`: its forecasts are projected, too.

        The weights at which a schedule-free optimizer is evaluated are averages; its `eval()` projects them.
        """
        optimizer.register_step_post_hook(lambda *_: self.project())
        if (evaluate := getattr(optimizer, "eval", None)) is not None:

            def evaluate_within_budget() -> None:
                evaluate()
                self.project()

            optimizer.eval = evaluate_within_budget  # type: ignore[attr-defined]  # torch's class has none

    @torch.no_grad()
    def project(self) -> None:
        """Shrink B of each adapter whose share is above its cap."""
        for group in self._groups:
            group.project()

    @torch.no_grad()
    def shares(self) -> dict[str, float]:
        """The share b of each adapted matrix by the name of its module. It waits for the device."""
        found: dict[str, float] = {}
        for group in self._groups:
            found |= dict(zip(group.modules, (group.norms() / group.base_norms).tolist(), strict=True))
        return {name: found[name] for name in self._order}


@torch.no_grad()
def within_budget(tensors: Mapping[str, Tensor], run: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights that no step gave, such as averages and forecasts, within the budget of the run that they belong to.

        import torch
        from metaopt.adapters import within_budget

        facts = {"method": "lora", "modules": ["head"], "rank": 1, "alpha": 1.0}
        run = {"adapter": facts, "delta_budget": {"cap": 0.25, "caps": {}}}
        names = ("lora_A.default.weight", "lora_B.default.weight", "base_layer.weight")
        weights = {f"head.{name}": torch.ones(1, 1) for name in names}
        assert within_budget(weights, run)["head.lora_B.default.weight"] == 0.25

    Args:
        tensors: all weights of a network with adapters, the frozen ones included.
        run: the facts of the run; without a budget, the weights stay as they are.
    Returns: the weights, with a smaller B where the share of a matrix is above its cap.
    Raises:
        InvalidConfig, LayoutMismatch: the facts describe no adapters or no budget of theirs, or a tensor is missing.
    """
    if (limits := run.get("delta_budget")) is None:
        return dict(tensors)
    if not (isinstance(limits, Mapping) and isinstance(limits.get("caps"), Mapping) and "adapter" in run):
        raise LayoutMismatch(f"{shown(limits)} is no budget of adapters; expected a cap, caps and adapters")
    facts = described_adapters(run["adapter"])
    found = tensors_of(tensors, facts)
    adapters = [LowRank(name, each.base, each.down, each.up.clone(), facts.scale) for name, each in found.items()]
    for group in _groups(adapters, _caps_of(facts.modules, limits.get("cap"), limits["caps"], WAN)):
        group.project()
    return {**tensors, **{names_of(each.module)[1]: each.up for each in adapters}}


def _groups(adapters: Iterable[LowRank], caps: Mapping[str, float | None]) -> list["_Group"]:
    shapes: dict[tuple[Any, ...], list[LowRank]] = {}
    for each in adapters:
        key = (each.down.shape, each.up.shape, each.up.dtype, each.up.device)
        shapes.setdefault(key, []).append(each)
    return [_Group(group, [caps[each.module] for each in group]) for group in shapes.values()]


class _Group:
    """Adapters of equal shapes, whose norms are computed at once."""

    def __init__(self, adapters: list[LowRank], caps: Iterable[float | None]) -> None:
        self.modules = [each.module for each in adapters]
        self._downs, self._ups = [each.down for each in adapters], [each.up for each in adapters]
        device = adapters[0].up.device
        self._dtype = torch.float32 if device.type == "mps" else _PRECISE  # which has no float64
        self._scales = torch.tensor([each.scale for each in adapters], dtype=self._dtype, device=device)
        with torch.no_grad():
            norms = [each.base.to(self._dtype).norm() for each in adapters]
        self.base_norms = torch.stack(norms)
        limits = torch.tensor([float("inf") if cap is None else cap for cap in caps], dtype=self._dtype, device=device)
        self._limits = torch.where(limits.isinf(), limits, limits * self.base_norms)

    def norms(self) -> Float[Tensor, " adapters"]:
        """‖ΔW‖_F of each adapter."""
        downs, ups = (torch.stack([*part]).to(self._dtype) for part in (self._downs, self._ups))
        squares = ((ups.mT @ ups) * (downs @ downs.mT).mT).sum((-2, -1))
        return self._scales.abs() * squares.clamp(min=0).sqrt()

    def project(self) -> None:
        """Shrink B where the norm is above the limit; once more where rounding has made it too large again."""
        self._shrink(margin=0.0)
        if self._ups[0].dtype.itemsize < 4:
            self._shrink(margin=torch.finfo(self._ups[0].dtype).eps)

    def _shrink(self, margin: float) -> None:
        norms = self.norms()
        factors = torch.where(norms > self._limits, self._limits / norms * (1 - margin), 1.0)
        for up, factor in zip(self._ups, factors.unbind(), strict=True):
            up.copy_(up.to(self._dtype) * factor)


def _caps_of(
    modules: list[str], cap: float | None, caps: Mapping[str, float], aliases: AliasTable | None
) -> dict[str, float | None]:
    """The cap of each module."""
    for name, value in {"cap": cap, **caps}.items():
        if value is not None and not (isinstance(value, int | float) and 0 < value < float("inf")):
            raise InvalidConfig(f"the budget {name} is {shown(value)}; expected a positive number, such as 0.25")
    found: dict[str, float | None] = dict.fromkeys(modules, cap)
    chosen: set[str] = set()
    for expression, value in caps.items():
        try:
            pattern = re.compile(expression)
        except re.error as error:
            raise InvalidConfig(f"the budget of {shown(expression)}: no regular expression ({error})") from error
        spelled = {name: aliases.spellings(name) if aliases else (name,) for name in modules}
        matching = [name for name in modules if any(map(pattern.search, spelled[name]))]
        if not matching:
            raise InvalidConfig(
                f"the budget of {shown(expression)} is for no adapted matrix; adapted are {', '.join(modules[:6])}"
                + (" …" if len(modules) > 6 else "")
            )
        found |= dict.fromkeys((name for name in matching if name not in chosen), value)
        chosen.update(matching)
    return found
