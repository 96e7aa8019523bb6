"""The settings of growth."""

from ..core.config import Config, option
from ..core.errors import InvalidConfig
from .alpha import SCHEDULES


class GrowthConfig(Config):
    """Where, how fast and how carefully a network grows."""

    taps: tuple[str, ...] = option(default=(), help="Taps at which branches grow; none: those that a host states.")
    interval: int = option(default=20, help="Steps between decisions of the controller [steps].", at_least=1)
    train_steps: int = option(default=20, help="Least steps of training before blending [steps].", at_least=0)
    tolerance: float = option(
        default=0.01, help="Rise of the loss, as a share of it, with which a seed may still be blended.", at_least=0.0
    )
    blend_steps: int = option(default=40, help="Steps in which alpha rises from 0 to 1 [steps].", at_least=1)
    schedule: str = option(default="linear", help="How alpha rises.", choices=tuple(SCHEDULES))
    probation_steps: int = option(default=20, help="Least steps of probation [steps].", at_least=0)
    embargo_steps: int = option(default=20, help="Steps without a seed after a culled one [steps].", at_least=0)
    initialisation: str = option(
        default="default", help="Initial weights of the first layer.", choices=("default", "gradmax")
    )
    lr_factor: float = option(default=1.0, help="Learning rate of seeds over that of the host.", above=0.0)
    examples: int = option(default=256, help="Held-out examples of each measurement [count].", at_least=1)
    spike: float = option(
        default=3.0, help="A loss above this times its running average removes the seed being blended.", above=1.0
    )
    forecaster: str = option(
        default="", help="Generative optimizer that the controller may call, such as builtin; empty: none."
    )
    horizons: tuple[int, ...] = option(default=(20, 80), help="Horizons of its nowcasts [steps].", at_least=1)
    seeds: int = option(default=4, help="Most growth seeds in the network [count].", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.taps)) < len(self.taps):
            raise InvalidConfig(f"taps is {list(self.taps)}; expected each tap once")
