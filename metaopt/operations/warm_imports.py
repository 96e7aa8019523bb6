"""Imports what jobs need, once, in the process from which they are forked: together it takes longer than a small job.

Some of it is imported by libraries at first use only. Nothing here may start a thread or use a GPU, because a forked
process has neither.
"""

import signal

import sklearn.datasets as datasets
import torch._dynamo as dynamo

from ..tracking import import_stores
from ..workflows import evaluate_optimizer as evaluate_optimizer
from ..workflows import record_trajectories as record_trajectories
from ..workflows import train_optimizer as train_optimizer
from . import job_process as job_process

import_stores()
signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # of Slurm to all processes before a time limit: the worker stops the job

__all__ = ["datasets", "dynamo", "evaluate_optimizer", "job_process", "record_trajectories", "train_optimizer"]
