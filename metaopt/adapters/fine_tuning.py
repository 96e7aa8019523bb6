"""Fine-tuning: which weights a training starts from, which of them it changes, and how far."""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..core.errors import InvalidConfig
from ..core.text import counted, shown
from ..trajectories.origin import Parent
from ..weights.building import skeleton_of
from ..weights.folded_names import fold
from ..weights.selection import train_only, trainable
from .budget import DeltaBudget
from .choice import chosen_adapters
from .config import ENCODER, ENCODER_FINETUNE, FineTuningConfig
from .initial_weights import InitialWeights, read_initial_weights
from .lora import insert_adapters

log = logging.getLogger(__name__)


class FineTuning:
    """What a configuration asks for, resolved for a network.

    Every network is built by `build`, and then `prepare` makes it the one that is trained:

        from functools import partial

        import torch

        import metaopt
        from metaopt.adapters import FineTuning, FineTuningConfig

        build = partial(metaopt.get_target_model, "MLP", in_features=4, widths=(8, 8))
        config = FineTuningConfig(adapter="lora", include="layers", layers="1", rank=2, delta_budget=0.1)
        tuning = FineTuning(config, build)
        model = tuning.prepare(build())  # only the two matrices of layers.1's adapter require a gradient
        optimizer = torch.optim.Adam(model.parameters())
        budget = tuning.limit(model, optimizer)  # after each step, ‖ΔW‖ ≤ 0.1 ‖W‖

    Args:
        config: what is trained.
        build: builds the network with random weights; called on the device `meta`, if its construction allows it.
    Attributes:
        facts: JSON values that tell the same network again: "space", and "adapter", "initial_weights" and
            "delta_budget" where they are given.
        parents: the initial weights, for the origin of what is trained.
    Raises:
        InvalidConfig: the configuration does not fit the network; the message says why.
        FileFormatError, LayoutMismatch: the initial weights cannot be used.
    """

    def __init__(self, config: FineTuningConfig, build: Callable[[], nn.Module]) -> None:
        self.facts: dict[str, Any] = {"space": config.trained_space}
        self.parents: tuple[Parent, ...] = ()
        self._initial: InitialWeights | None = None
        if not config.is_given:
            return
        network = skeleton_of(build)
        if config.mode == ENCODER_FINETUNE:
            _check_encoder(network)
        _check_space(network, config.space)
        if config.initial_weights is not None:
            self._initial = read_initial_weights(config.initial_weights, network, expert=config.expert)
            self.facts["initial_weights"] = self._initial.facts
            self.parents = self._initial.parents
            _warn_of_unused(self._initial, network)
        if adapters := chosen_adapters(network, config):
            self.facts["adapter"] = adapters._asdict()
        if config.delta_budget is not None or config.delta_budgets:
            self.facts["delta_budget"] = {"cap": config.delta_budget, "caps": dict(config.delta_budgets)}

    def prepare(self, model: nn.Module) -> nn.Module:
        """Load the initial weights, insert the adapters, and freeze what is not trained; returns the network."""
        if self._initial is not None:
            self._initial.load_into(model)
        return prepared(model, self.facts)

    def limit(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> DeltaBudget | None:
        """Keep the changes within their budget after each step of an optimizer; None without a budget."""
        if (limits := self.facts.get("delta_budget")) is None:
            return None
        budget = DeltaBudget(model, limits["cap"], limits["caps"])
        budget.attach(optimizer)
        return budget


def prepared(model: nn.Module, facts: Mapping[str, Any]) -> nn.Module:
    """Insert the adapters that the facts of a run state, and freeze what it does not train; returns the network.

    Raises:
        InvalidConfig, LayoutMismatch: as for `insert_adapters` and `train_only`.
    """
    if "adapter" in facts:
        insert_adapters(model, facts["adapter"])
    train_only(model, facts.get("space"))
    return model


def describe_adapters(facts: Mapping[str, Any]) -> str:
    """The adapted matrices in a sentence, such as "lora of rank 16 on 20 matrices: blocks.20-29.attn2.{to_k,to_v}"."""
    adapter = facts["adapter"]
    modules = adapter["modules"]
    names = ", ".join(each.pattern for each in fold({f"{module}.weight": "" for module in modules}))
    return f"{adapter['method']} of rank {adapter['rank']} on {counted(len(modules), 'module')}: {names}"


def _check_encoder(network: nn.Module) -> None:
    """Check that the encoder, which is to be trained, can be trained."""
    name, encoder = type(network).__name__, getattr(network, ENCODER, None)
    if encoder is None:
        raise InvalidConfig(f"mode is {ENCODER_FINETUNE}, but {name} has no module named {ENCODER}")
    if _caches_embeddings(network):
        raise InvalidConfig(
            f"mode is {ENCODER_FINETUNE}, and cache_embeddings (in target_options) is true: the network would read "
            "embeddings of the old encoder, and training would do nothing. Set cache_embeddings to false, or mode "
            "to adapter"
        )
    if not trainable(encoder):
        raise InvalidConfig(f"mode is {ENCODER_FINETUNE}, but the encoder of {name} is frozen: nothing would train")


def _check_space(network: nn.Module, space: str | None) -> None:
    """Check that no weights are to be trained of an encoder whose embeddings are cached."""
    if space is None or not _caches_embeddings(network):
        return
    names = (name for name, _ in network.named_parameters() if name.startswith(f"{ENCODER}."))
    if found := next((name for name in names if re.search(space, name)), None):
        raise InvalidConfig(
            f"space is {shown(space)}, which matches {found}, and cache_embeddings (in target_options) is true: the "
            "encoder would not be trained. Set cache_embeddings to false, or give a space without the encoder"
        )


def _caches_embeddings(network: nn.Module) -> bool:
    return bool(getattr(getattr(network, "config", None), "cache_embeddings", False))


def _warn_of_unused(initial: InitialWeights, network: nn.Module) -> None:
    if left := initial.left_out(network):
        log.warning("no file has weights of %s, which starts from random ones", ", ".join(left))
    if initial.unused:
        log.warning("not used, because they are no part of the network: %s", ", ".join(initial.unused))
