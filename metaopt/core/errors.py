"""Errors that a user can act on.

Every message says what came, what was expected and what to do next. All are `ValueError`s, so that code which
knows nothing of metaopt can still catch them; the command line prints them without a stack trace.
"""


class MetaoptError(ValueError):
    """Base of all errors that metaopt raises on purpose."""


class UnknownName(MetaoptError):
    """A task, target or optimizer that no table and no installed plug-in knows."""


class InvalidConfig(MetaoptError):
    """A configuration value that breaks its own rule."""


class RunNameError(MetaoptError):
    """A run name that cannot be a folder, is taken, is in use, or names nothing."""


class FileFormatError(MetaoptError):
    """A file that is damaged, is not what its name says, or is not one of ours."""


class StorageError(MetaoptError):
    """A file that could not be written; what stood there before is untouched."""


class LayoutMismatch(MetaoptError):
    """Weights that do not fit the network, or the layout, that they are meant for."""


class TrajectoryError(MetaoptError):
    """A trajectory that is missing, too short or inconsistent."""


class CheckpointError(MetaoptError):
    """A checkpoint that cannot be found or does not belong to this training."""


class TaskDataError(MetaoptError):
    """Data that is missing, unreadable or unfit for its task."""


class Diverged(MetaoptError):
    """A training whose loss or weights are no longer finite."""


class WorkerDied(MetaoptError):
    """A worker process that ended without an answer, mostly for want of memory."""


class RunsFailed(MetaoptError):
    """Some of several trainings that failed; the others are whole."""


class TrackingError(MetaoptError):
    """A tracking server, run or model version that is not what was asked for."""
