"""Use a generative optimizer inside an ordinary PyTorch training."""

from .batchnorm import reestimate_batchnorm
from .proposals import NowcastEvent
from .schedule import REACH, check_schedule, usual_horizons, whole_strides, within_reach
from .sources import BUILTIN, load_optimizer
from .straight import STRAIGHT, check_straight, goes_straight
from .wrapper import Nowcast

__all__ = [
    "BUILTIN",
    "REACH",
    "STRAIGHT",
    "Nowcast",
    "NowcastEvent",
    "check_schedule",
    "check_straight",
    "goes_straight",
    "load_optimizer",
    "reestimate_batchnorm",
    "usual_horizons",
    "whole_strides",
    "within_reach",
]
