"""The settings of adapters."""

from ..core.config import Config, option
from ..core.errors import InvalidConfig

_NEED_ADAPTER = ("include", "exclude", "layers", "allow_self_attention")


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
        if self.adapter is None and (given := [name for name in _NEED_ADAPTER if getattr(self, name)]):
            raise InvalidConfig(f"{given[0]} is given without an adapter; give adapter=lora, or leave it out")
