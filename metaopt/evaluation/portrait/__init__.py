"""A closer look at one held-out training: where predictions from its states lead, and what they rest on."""

from .attention import Attention
from .course import Course
from .horizons import Horizons
from .layers import Layers
from .plane import Plane
from .whole import Portrait, portrait

__all__ = ["Attention", "Course", "Horizons", "Layers", "Plane", "Portrait", "portrait"]
