"""Short stories for small networks, through the datasets library."""

from functools import partial

import torch

from ..core.config import option
from ..core.dependencies import import_extra
from ..core.errors import TaskDataError
from .base import naming
from .cache import Made, cached, key_of
from .language_model import CorpusConfig, LanguageModel

_NAME = "roneneldan/TinyStories"
_PATIENCE = 10  # seconds until the place of the stories answers


class TinyStoriesConfig(CorpusConfig):
    """How many stories there are and what they are cut into."""

    stories: int = option(default=10_000, help="How many stories to take, from the first on [count].", at_least=1)


class TinyStories(LanguageModel):
    """Say how a story goes on that a child of three would understand (Eldan & Li 2023, arXiv:2305.07759).

    The stories are downloaded once and kept in the cache folder. It needs the package datasets, an extra of ours.
    """

    Config = TinyStoriesConfig

    def __init__(self, config: TinyStoriesConfig) -> None:
        stored, _ = cached("tinystories", key_of(_NAME, config.stories), partial(_download, config.stories))
        with naming(f"{config.stories} stories of {_NAME}"):
            super().__init__(stored["text"].numpy().tobytes().decode(), config)


def _download(stories: int) -> Made:
    datasets, hub = (import_extra(name, "datasets") for name in ("datasets", "huggingface_hub"))
    try:
        hub.HfApi().dataset_info(_NAME, timeout=_PATIENCE)  # without a network, loading would try for minutes
        rows = datasets.load_dataset(_NAME, split="train", streaming=True).take(stories)
        text = "\n".join(row["text"] for row in rows)
    except Exception as error:  # whatever the libraries for networks, files and formats below it raise
        raise TaskDataError(
            f"cannot download {_NAME} ({type(error).__name__}: {error}). Connect to a network, or get the stories as a "
            "text file elsewhere and use the task `text` with data_dir=FILE"
        ) from error
    return Made({"text": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}, {})
