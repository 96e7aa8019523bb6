"""Use a generative optimizer inside an ordinary PyTorch training."""

from .data_guard import guard_from
from .model_state import reestimate_batchnorm
from .optimizer import Nowcast
from .policy import NowcastEvent, NowcastPolicy

__all__ = ["Nowcast", "NowcastEvent", "NowcastPolicy", "guard_from", "reestimate_batchnorm"]
