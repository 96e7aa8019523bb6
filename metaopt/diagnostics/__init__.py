"""A closer look at one held-out training: where predictions from its states lead, and what they rest on."""

from .attention import Attention
from .diagnose import Diagnostics, diagnose
from .horizons import Horizons
from .layers import Layers
from .plane import Plane
from .probed_run import ProbedRun

__all__ = ["Attention", "Diagnostics", "Horizons", "Layers", "Plane", "ProbedRun", "diagnose"]
