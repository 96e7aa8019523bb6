"""The errors of metaopt.

Every message states what came, what was expected and what to do next. All errors are `ValueError`s, so that code
without knowledge of metaopt can catch them. The command line prints them without a stack trace.
"""


class MetaoptError(ValueError):
    """Base class of all errors that metaopt raises on purpose."""


class UnknownName(MetaoptError):
    """A name of a task, target or optimizer that neither metaopt nor an installed plug-in defines."""


class InvalidConfig(MetaoptError):
    """A value of a configuration that breaks the rule of its parameter."""


class UntrustedCode(InvalidConfig):
    """A file that names code to import, without the user's permission."""


class LockedField(InvalidConfig):
    """A parameter that a campaign has locked, with another value than in the first run of the job."""


class RunNameError(MetaoptError):
    """A run name that is no valid folder name, is taken, is in use, or does not exist."""


class FileFormatError(MetaoptError):
    """A file that is damaged, has another format than its name states, or was not written by metaopt."""


class StorageError(MetaoptError):
    """A file that could not be written; an earlier file of that name is unchanged."""


class LayoutMismatch(MetaoptError):
    """Weights whose names, shapes or dtypes do not match the network or the layout."""


class TrajectoryError(MetaoptError):
    """A trajectory that is missing, too short or inconsistent."""


class CheckpointError(MetaoptError):
    """A checkpoint that does not exist or belongs to another training."""


class TaskDataError(MetaoptError):
    """Data that is missing, unreadable or unsuitable for its task."""


class Diverged(MetaoptError):
    """A training whose loss or weights are no longer finite."""


class WorkerDied(MetaoptError):
    """A worker process that ended without a result, mostly for lack of memory."""


class RunsFailed(MetaoptError):
    """Several trainings of which some failed; the others are complete."""


class TrackingError(MetaoptError):
    """A tracking server, run or model version that does not exist, does not respond or denies access."""


class IllegalTransition(MetaoptError):
    """A stage of a growth seed, or a state of a job, that cannot follow its present one."""


class QueueError(MetaoptError):
    """A queue that cannot be reached, is damaged, or was written by a newer metaopt."""


class JobError(MetaoptError):
    """A job that does not exist, waits for itself, or was written by another version of metaopt."""


class LineageError(MetaoptError):
    """A lineage with a missing link, or of something that does not exist."""
