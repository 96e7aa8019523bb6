"""d."""
from .captions import *
from .flow import pack, unpack
