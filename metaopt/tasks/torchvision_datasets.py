"""Public sets of small images in their own file formats, through torchvision's loaders."""

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.config import option
from ..core.dependencies import import_torchvision
from ..core.errors import TaskDataError
from .base import Batch, SplitConfig
from .images import VariedImages, resized, standardised


class TorchvisionConfig(SplitConfig):
    """Where the files lie, what is made of the images, and how they are divided and varied."""

    data_dir: Path = option(default=Path("data"), help="Folder that holds, or will hold, the data set's own folder.")
    download: bool = option(default=True, help="Download the files where they are missing.")
    image_size: int = option(
        default=0, help="Height and width to which images are brought [pixels]; 0 leaves them as they are.", at_least=0
    )
    shift: int = option(default=0, help="Largest random shift of a training image [pixels]; 0 for none.", at_least=0)
    flip: bool = option(default=False, help="Mirror half of the training images, anew in each epoch.")


class TorchvisionImages(VariedImages):
    """A data set of ten classes that torchvision can load. A subclass names it and is final."""

    Config = TorchvisionConfig
    folder: ClassVar[str]
    """Where its files lie within `data_dir`."""
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    """Of each channel of the public training images [0 to 1]."""

    def __init__(self, config: TorchvisionConfig) -> None:
        load = getattr(import_torchvision().datasets, type(self).__name__)
        try:
            train, test = (load(str(config.data_dir), train=part, download=config.download) for part in (True, False))
        except (RuntimeError, OSError) as error:
            raise TaskDataError(
                f"no readable {load.__name__} files in {config.data_dir / self.folder}, and downloading them failed "
                f"({error}). Connect to a network, or give the folder that holds {self.folder} as --data-dir"
            ) from error
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.std))
        train, test = (_batch(part, config.image_size) for part in (train, test))
        super().__init__(train, test, 10, config, prepare=partial(standardised, mean=mean, std=std))
        self.shift, self.flip = config.shift, config.flip


class MNIST(TorchvisionImages):
    """Name the digit in a 28×28 image (LeCun et al. 1998); files with fewer images than the public ones are fine."""

    folder = "MNIST/raw"
    mean, std = (0.1307,), (0.3081,)


class FashionMNIST(TorchvisionImages):
    """Name the garment in a grey 28×28 image (Xiao et al. 2017, arXiv:1708.07747)."""

    folder = "FashionMNIST/raw"
    mean, std = (0.2860,), (0.3530,)


class CIFAR10(TorchvisionImages):
    """Name the thing in a 32×32 photograph (Krizhevsky 2009)."""

    folder = "cifar-10-batches-py"
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def _batch(dataset: Any, image_size: int) -> Batch:
    images = _channels_first(torch.as_tensor(dataset.data)).contiguous()
    return Batch(
        resized(images, image_size) if image_size else images, torch.as_tensor(dataset.targets, dtype=torch.int64)
    )


def _channels_first(images: Tensor) -> Tensor:
    """From rows of grey or of coloured pixels."""
    return images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1)
