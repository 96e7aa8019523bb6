"""Names of the tags that tracking reads and writes: MLflow's system tags and metaopt's own.

MLflow documents its system tags at https://mlflow.org/docs/latest/ml/tracking/tracking-api/.
"""

DESCRIPTION_TAG = "mlflow.note.content"
"""Description of a run, an experiment or a logged model, in Markdown."""

PARENT_TAG = "mlflow.parentRunId"
"""ID of the parent run."""

SOURCE_TAGS = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")
"""User and source code of a run; child runs inherit them."""

DATASET_CONTEXT_TAG = "mlflow.data.context"
"""Use of a data set in a run, such as "training"."""

NAME_TAG = "metaopt.name"
"""metaopt's name for a launched run, which keeps the name from its launcher."""

ERROR_TAG = "metaopt.error"
"""The error of a failed run."""

JOB_TAG = "metaopt.job"
"""In a run of a queue: the ID of its job."""

TRAJECTORY_RUNS_TAG = "metaopt.trajectory_runs"
"""In a phase-2 run: the phase-1 runs whose trajectories it used."""

OPTIMIZER_RUNS_TAG = "metaopt.optimizer_runs"
"""In a phase-1 run: the phase-2 runs that used its trajectory."""

EVALUATED_TAG = "metaopt.judged"
"""In an evaluation: the evaluated version. The name is that of metaopt 0.1."""

CARD_TAG = "metaopt.card"
"""In a registered model: digest of metaopt's description, to detect descriptions written by users."""

LONGEST_TAG = 5000
"""Maximum length of a tag's value in every store [characters]."""

KEY_TAG = "metaopt.key"
"""In a child run: finds the run if the store's answer to its creation was lost."""

HOST_TAG = "metaopt.host"
"""Name of the machine that wrote a run."""

PROCESS_TAG = "metaopt.process"
"""The process that wrote a run, as in `metaopt.core.process_identity`."""

CLOSED_BY_TAG = "metaopt.closed_by"
"""In a run whose process was gone: the run that set its status."""

UNSENT_TAG = "metaopt.unsent"
"""In a run that the store did not completely accept: the local folder with the rest, for `metaopt upload`."""

VIEW_TAG = "mlflow.sharedViewState."
"""Beginning of the tags of an experiment that hold its shared views."""

EXPERIMENT_KIND_TAG = "mlflow.experimentKind"
"""What an experiment is for; the UI chooses its pages by it."""
