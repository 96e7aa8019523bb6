"""Use a generative optimizer inside an ordinary PyTorch training."""

from .guards.data_guard import guard_from
from .optimizer import Nowcast
from .policy import NowcastEvent, NowcastPolicy
from .reestimation import reestimate_batchnorm

__all__ = ["Nowcast", "NowcastEvent", "NowcastPolicy", "guard_from", "reestimate_batchnorm"]
