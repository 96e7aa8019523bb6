"""Use a generative optimizer inside an ordinary PyTorch training."""

from .model_state import reestimate_batchnorm
from .optimizer import Nowcast
from .policy import NowcastEvent, NowcastPolicy

__all__ = ["Nowcast", "NowcastEvent", "NowcastPolicy", "reestimate_batchnorm"]
