"""The settings of adapters and of fine-tuning."""

import re
from dataclasses import fields
from pathlib import Path

from ..core.config import Config, Options, option
from ..core.errors import InvalidConfig
from ..core.text import shown

ENCODER_FINETUNE, ADAPTER_MODE = "encoder-finetune", "adapter"
EXPERTS = ("high_noise", "low_noise")
ENCODER = "encoder"
"""Name of the module of a network that encodes texts."""


class AdapterConfig(Config):
    """Which matrices adapters change, and how large the adapters are."""

    adapter: str | None = option(
        default=None,
        help="Train adapters beside the frozen network, and record them alone: lora; none: train the network.",
        choices=("lora",),
    )
    include: str | None = option(
        default=None, help=r"Regular expression: only matching linear layers are adapted, such as 'cross_attn\.(k|v)'."
    )
    exclude: str | None = option(default=None, help="Regular expression: matching linear layers are not adapted.")
    layers: str | None = option(default=None, help="Numbers of the layers that are adapted, such as 20-29.")
    rank: int = option(default=16, help="Rank of each adapter [count].", at_least=1)
    alpha: float = option(default=16.0, help="The change of a matrix is alpha / rank times B A.", above=0.0)
    allow_self_attention: bool = option(
        default=False,
        help="Adapt self-attention, too, in a network that also has cross-attention; then with a rank of at most 4.",
    )

    def __post_init__(self) -> None:
        """Check each value, and that adapters are there if one of their settings is given.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        given = [field.name for field in fields(AdapterConfig) if getattr(self, field.name) != field.default]
        if self.adapter is None and given:
            raise InvalidConfig(f"{given[0]} is given without an adapter; give adapter=lora, or leave it out")


class FineTuningConfig(AdapterConfig):
    """Which weights a training starts from, which of them it changes, and how far."""

    initial_weights: Path | None = option(
        default=None,
        help="Weights to start from: a safetensors file, a folder of such files, or a trajectory; none: random ones.",
    )
    expert: str | None = option(
        default=None,
        help="Which of two experts the initial weights are of, if they are there for both, as in Wan 2.2 A14B.",
        choices=EXPERTS,
    )
    space: str | None = option(
        default=None, help="Regular expression: only weights whose names match it are trained and recorded."
    )
    mode: str | None = option(
        default=None,
        help="Check that nothing else is trained than the text encoder (encoder-finetune), or adapters (adapter).",
        choices=(ENCODER_FINETUNE, ADAPTER_MODE),
    )
    delta_budget: float | None = option(
        default=None, help="Largest change of an adapted matrix, ‖ΔW‖ / ‖W‖; none: no limit.", above=0.0
    )
    delta_budgets: Options = option(
        default={},
        help="Largest changes by regular expression, such as `cross_attn=0.25 ffn=0.1`, before delta_budget.",
    )

    def __post_init__(self) -> None:
        """Check each value, that `space` is a regular expression, and that the mode permits what is trained.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        try:
            re.compile(self.space or "")
        except re.error as error:
            raise InvalidConfig(f"space is {shown(self.space)}, which is no regular expression: {error}") from error
        if self.adapter is None and (self.delta_budget is not None or self.delta_budgets):
            raise InvalidConfig("a delta budget is one of adapters; give adapter=lora, or leave it out")
        if self.expert is not None and self.initial_weights is None:
            raise InvalidConfig(f"expert is {self.expert} without initial_weights; give the folder of both experts")
        if self.mode == ADAPTER_MODE and self.adapter is None:
            raise InvalidConfig(
                f"mode is {ADAPTER_MODE} without an adapter: the weights of the base would be trained. Give "
                "adapter=lora, or leave mode out"
            )
        if self.mode == ENCODER_FINETUNE and self.adapter is not None:
            raise InvalidConfig(
                f"mode is {ENCODER_FINETUNE} and adapter is {self.adapter}, which freezes the encoder: leave one of "
                "them out"
            )
        if self.mode is not None and self.space is not None:
            raise InvalidConfig(
                f"mode is {self.mode} and space is {shown(self.space)}: the mode decides what is trained; leave one of "
                "them out"
            )

    @property
    def trained_space(self) -> str | None:
        """The regular expression of the names of the weights that are trained, before adapters are inserted."""
        return rf"^{ENCODER}\." if self.mode == ENCODER_FINETUNE else self.space

    @property
    def is_given(self) -> bool:
        """Whether something else is asked for than to train the whole network from random weights."""
        return any(each is not None for each in (self.adapter, self.initial_weights, self.space, self.mode))
