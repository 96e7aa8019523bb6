"""Low-rank adapters (LoRA) in a network: W + s B A with a frozen W, inserted by PEFT."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.dependencies import import_extra
from ..core.errors import InvalidConfig, LayoutMismatch
from ..core.text import shown
from ..core.values import are_counts
from ..weights.files import kind_of, read_facts

ADAPTER = "default"
"""Name of the adapter in PEFT's layers."""


class AdapterFacts(NamedTuple):
    """What is needed to insert adapters into a network again, as JSON values.

    Attributes:
        method: "lora".
        modules: names of the modules whose matrices are changed.
        rank: columns of B, and rows of A.
        alpha: the change of a matrix is alpha / rank · B A.
    """

    method: str
    modules: list[str]
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """The change of a matrix is scale · B A."""
        return self.alpha / self.rank


class LowRank(NamedTuple):
    """The adapter of one matrix.

    Attributes:
        module: name of the module.
        base: the frozen matrix W [rows, columns].
        down: A [rank, columns].
        up: B [rows, rank].
        scale: s, so that the change of W is s B A.
    """

    module: str
    base: Tensor
    down: Tensor
    up: Tensor
    scale: float


def insert_adapters(model: nn.Module, facts: Mapping[str, Any]) -> nn.Module:
    """Insert adapters into a network, and freeze all of its own weights. The outputs stay the same: B is zero.

        import torch
        from metaopt import get_target_model
        from metaopt.adapters import insert_adapters

        model, images = get_target_model("MLP", in_features=4, widths=(8,)), torch.randn(2, 4)
        before = model(images)
        facts = {"method": "lora", "modules": ["layers.1"], "rank": 2, "alpha": 4.0}
        assert insert_adapters(model, facts)(images).equal(before)
        [name for name, weights in model.named_parameters() if weights.requires_grad]  # two, of layers.1

    A (`lora_A`) is drawn as PEFT does, from the random state of torch.

    Args:
        model: changed in place.
        facts: the fields of `AdapterFacts`.
    Returns: the network.
    Raises:
        InvalidConfig: the rank or alpha is not positive, a module is missing or no linear layer, the network has
            adapters, or PEFT is not installed.
        LayoutMismatch: the facts do not describe adapters.
    References: Hu et al. 2021, arXiv:2106.09685.
    """
    described = described_adapters(facts)
    if next(adapters_of(model), None) is not None:
        raise InvalidConfig(f"{type(model).__name__} has adapters; merge them, or begin with a network without")
    modules, linear = dict(model.named_modules()), linear_layers(model)
    for name in described.modules:
        if name not in linear:
            found = type(modules[name]).__name__ if name in modules else "missing"
            raise InvalidConfig(
                f"{shown(name)} of {type(model).__name__} is {found}; expected a torch.nn.Linear outside of "
                "torch.nn.MultiheadAttention"
            )
    peft = import_extra("peft", "adapters")
    exactly = "|".join(re.escape(name) for name in described.modules)  # PEFT takes names in a list as suffixes
    config = peft.LoraConfig(
        r=described.rank, lora_alpha=described.alpha, lora_dropout=0.0, bias="none", target_modules=exactly
    )
    peft.inject_adapter_in_model(config, model, ADAPTER)
    return model


def adapt_as(model: nn.Module, path: Path | str) -> nn.Module:
    """Insert the adapters of a recorded network into a new one, whose weights can then be loaded.

        from metaopt import Trajectory, get_target_model, load_model_weights
        from metaopt.adapters import adapt_as

        trajectory = Trajectory.open("trajectories/digits/seed_0")
        model = get_target_model("MLP", **trajectory.run["target_config"])
        adapt_as(model, trajectory.snapshots[-1].path)  # nothing to insert here: all of its weights were trained

    Args:
        model: the network without adapters, changed in place.
        path: a snapshot, or a file of generated weights.
    Returns: the network.
    Raises:
        FileFormatError: the file is damaged, or of another kind.
        InvalidConfig, LayoutMismatch: as for `insert_adapters`.
    """
    path = Path(path)
    run = read_facts(path, kind_of(path)).get("run", {})
    return insert_adapters(model, run["adapter"]) if "adapter" in run else model


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The layers that adapters can change, by name, in the order of modules.

    `torch.nn.MultiheadAttention` reads the weights of its layer without calling it: an adapter would do nothing.
    """
    modules = dict(model.named_modules())
    return {
        name: module
        for name, module in modules.items()
        if isinstance(module, nn.Linear) and not isinstance(modules.get(name.rpartition(".")[0]), nn.MultiheadAttention)
    }


def adapters_of(model: nn.Module) -> Iterator[LowRank]:
    """The adapters of a network, in the order of its modules. Nothing is imported if there are none."""
    for name, module in model.named_modules():
        downs, ups = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
        if isinstance(downs, nn.ModuleDict) and isinstance(ups, nn.ModuleDict) and ADAPTER in downs:
            base = module.get_base_layer().weight
            down, up = downs.get_parameter(f"{ADAPTER}.weight"), ups.get_parameter(f"{ADAPTER}.weight")
            yield LowRank(name, base, down, up, float(module.scaling[ADAPTER]))


@torch.no_grad()
def change_of(adapter: LowRank) -> Tensor:
    """The change of a matrix, s B A, as a whole matrix [rows, columns]. It takes as much memory as W."""
    return adapter.scale * (adapter.up @ adapter.down)


def described_adapters(facts: Mapping[str, Any]) -> AdapterFacts:
    """The facts of adapters, checked.

    Raises:
        InvalidConfig, LayoutMismatch: as for `insert_adapters`.
    """
    try:
        described = AdapterFacts(**facts)
    except TypeError as error:
        raise LayoutMismatch(f"{shown(dict(facts))} describes no adapters: {error}") from error
    names = described.modules
    if described.method != "lora" or not names or not all(isinstance(name, str) for name in names):
        raise LayoutMismatch(
            f"adapters of the method {shown(described.method)} at {shown(names)}; expected lora, and names"
        )
    if not are_counts(described.rank):
        raise InvalidConfig(f"rank is {shown(described.rank)}; expected a whole number of 1 or more")
    if not isinstance(described.alpha, int | float) or not 0 < described.alpha < float("inf"):
        raise InvalidConfig(f"alpha is {shown(described.alpha)}; expected a positive number")
    return described
