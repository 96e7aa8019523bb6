"""MNIST in its own file format, through torchvision's loader."""

from pathlib import Path
from typing import Any

import torch

from ..configuration import option
from ..dependencies import import_torchvision
from ..errors import TaskDataError
from .base import Batch, SplitConfig
from .classification import Classification

_MEAN, _STD = 0.1307, 0.3081  # of the public training images


class MNISTConfig(SplitConfig):
    """Where the files lie and how they are divided."""

    data_dir: Path = option(default=Path("data"), help="Folder that holds, or will hold, MNIST/raw.")
    download: bool = option(default=True, help="Download the files where they are missing.")


class MNIST(Classification):
    """Name the digit in a 28×28 image (LeCun et al. 1998); files with fewer images than the public ones are fine."""

    Config = MNISTConfig

    def __init__(self, config: MNISTConfig) -> None:
        datasets = import_torchvision().datasets
        try:
            train = datasets.MNIST(str(config.data_dir), train=True, download=config.download)
            test = datasets.MNIST(str(config.data_dir), train=False, download=config.download)
        except (RuntimeError, OSError) as error:
            raise TaskDataError(
                f"no readable MNIST files in {config.data_dir / 'MNIST' / 'raw'}, and downloading them failed "
                f"({error}). Connect to a network, or give the folder that holds MNIST/raw as --data-dir"
            ) from error
        super().__init__(_batch(train), _batch(test), classes=10, config=config)


def _batch(dataset: Any) -> Batch:
    images = dataset.data.unsqueeze(1).float() / 255
    return Batch((images - _MEAN) / _STD, dataset.targets.to(torch.int64))
