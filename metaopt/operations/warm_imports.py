"""Imports what jobs need, once, in the process from which they are forked: it takes seconds.

Nothing here may start a thread or use a GPU, because a forked process has neither.
"""

from ..workflows import evaluate_optimizer as evaluate_optimizer
from ..workflows import record_trajectories as record_trajectories
from ..workflows import train_optimizer as train_optimizer
from . import job_process as job_process
