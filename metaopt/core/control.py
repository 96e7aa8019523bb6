"""What a training and the process around it tell each other: how far it is, and whether it should stop.

A training counts its steps here and asks after each whether to stop. A worker of the queue reads the count, to see that
the training goes on, and requests the stop. Both are plain attributes, so a step costs next to nothing.
"""

from collections.abc import Callable, Sequence

from .signals import TERMINATED


class StopRequested(SystemExit):
    """A training was asked to stop, and wrote a checkpoint from which it can be resumed.

    It ends the process like SIGTERM does, and a run that it ends has the status KILLED.
    """

    def __init__(self) -> None:
        super().__init__(TERMINATED)


class Control:
    """The count of steps of this process, the request to stop, and what a queue must know of its runs.

    Attributes:
        steps: steps that trainings of this process have finished, of any kind [count].
        stop_requested: whether a training should stop after its step. Any thread may set it.
        run_id: the MLflow run that this process started last.
        job: name of the job of a queue that this process runs; a tag of its MLflow runs.
        earlier_runs: IDs of the MLflow runs of earlier attempts of that job.
        on_run: called with the ID of each MLflow run that this process starts, when the files that it replaces are
            removed, and before it writes one.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.stop_requested = False
        self.run_id: str | None = None
        self.job: str | None = None
        self.earlier_runs: Sequence[str] = ()
        self.on_run: Callable[[str], None] | None = None

    def run_started(self, run_id: str) -> None:
        """Note that an MLflow run has started, and from now on may write files.

        Args:
            run_id: its ID.
        """
        self.run_id = run_id
        if self.on_run is not None:
            self.on_run(run_id)


control = Control()
"""The control of this process. A training that is asked to stop writes a checkpoint and raises `StopRequested`."""
