"""The inspector: what the headers of safetensors files tell about a network, without reading a tensor."""

from ...weights.networks import Network
from .inspection import Block, Inspection, blocks_of, inspect_files
from .parity import Difference, Parity

__all__ = ["Block", "Difference", "Inspection", "Network", "Parity", "blocks_of", "inspect_files"]
