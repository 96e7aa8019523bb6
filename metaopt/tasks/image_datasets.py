"""Public image data sets: MNIST, Fashion-MNIST, CIFAR-10 and scikit-learn's digits."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.config import option
from ..core.dependencies import import_torchvision
from ..core.errors import TaskDataError
from ..core.text import reason_of
from .base import Batch, SplitConfig, hold_out
from .data_files import open_file
from .image_augmentation import AugmentedClassification, resized, standardised


class TorchvisionConfig(SplitConfig):
    """Files, image size, augmentation and splits of a data set of torchvision."""

    data_dir: Path = option(default=Path("data"), help="Folder that contains the data set's own folder.")
    download: bool = option(default=True, help="Download missing files.")
    image_size: int = option(
        default=0, help="Height and width to resize images to [pixels]; 0 keeps the original size.", at_least=0
    )
    shift: int = option(default=0, help="Largest random shift of a training image [pixels]; 0 for none.", at_least=0)
    flip: bool = option(default=False, help="Mirror a random half of the training images in each epoch.")


class TorchvisionDataset(AugmentedClassification):
    """Base class of data sets of ten classes that torchvision loads; the name of a subclass is torchvision's."""

    Config = TorchvisionConfig
    folder: ClassVar[str]
    """Folder of its files in `data_dir`."""
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    """Of each channel of the training images [0 to 1]."""

    def __init__(self, config: TorchvisionConfig) -> None:
        train, test = self._load(config)
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.std))
        train, test = (_batch(part, config.image_size) for part in (train, test))
        super().__init__(train, test, 10, config, prepare=partial(standardised, mean=mean, std=std))
        self.shift, self.flip = config.shift, config.flip

    def _load(self, config: TorchvisionConfig) -> list[Any]:
        """The training and the test images. Folders are made only for a download, and not left empty where it fails."""
        load = getattr(import_torchvision().datasets, type(self).__name__)
        folder = config.data_dir / self.folder
        _check_files(folder)
        parts = [partial(load, str(config.data_dir), train=train) for train in (True, False)]
        try:
            return [part(download=False) for part in parts]
        except Exception as error:  # torchvision raises many types on invalid files
            if not config.download:
                raise TaskDataError(
                    f"no readable {load.__name__} files in {folder} ({reason_of(error)}), and download is false. Give "
                    f"the folder that contains {self.folder} as --data-dir, or set download=true"
                ) from error
        with _without_empty_folders(folder):
            try:
                return [part(download=True) for part in parts]
            except Exception as error:
                raise TaskDataError(
                    f"no readable {load.__name__} files in {folder}, and downloading them failed ({reason_of(error)}). "
                    f"Connect to a network, or give the folder that contains {self.folder} as --data-dir"
                ) from error


class MNIST(TorchvisionDataset):
    """MNIST: classify 28×28 grey images of handwritten digits (LeCun et al. 1998)."""

    folder = "MNIST/raw"
    mean, std = (0.1307,), (0.3081,)


class FashionMNIST(TorchvisionDataset):
    """Fashion-MNIST: classify 28×28 grey images of clothes (Xiao et al. 2017, arXiv:1708.07747)."""

    folder = "FashionMNIST/raw"
    mean, std = (0.2860,), (0.3530,)


class CIFAR10(TorchvisionDataset):
    """CIFAR-10: classify 32×32 colour images (Krizhevsky 2009)."""

    folder = "cifar-10-batches-py"
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class DigitsConfig(SplitConfig):
    """Image size, augmentation and splits of the digits."""

    validation_fraction: float = option(
        default=0.25, help="Fraction of all images held out for validation.", above=0.0, below=1.0
    )
    image_size: int = option(default=8, help="Height and width to resize images to [pixels].", at_least=2)
    shift: int = option(default=1, help="Largest random shift of a training image [pixels]; 0 for none.", at_least=0)


class Digits(AugmentedClassification):
    """Digits of scikit-learn: classify 1,797 grey 8×8 images, without a download (Alpaydin & Kaynak 1998).

    The images are the test part of the UCI data set Optical Recognition of Handwritten Digits. By default, training
    images are shifted by up to a pixel, because a network overfits about a thousand of them within a few epochs.
    """

    Config = DigitsConfig

    def __init__(self, config: DigitsConfig) -> None:
        from sklearn.datasets import load_digits  # slow to import, and no other task needs it

        self.shift = config.shift
        images, labels = load_digits(return_X_y=True)
        inputs = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        inputs = inputs if config.image_size == 8 else resized(inputs, config.image_size)
        inputs = (inputs - inputs.mean()) / inputs.std()
        digits = Batch(inputs, torch.tensor(labels, dtype=torch.int64))
        train, validation = hold_out(digits, config.validation_fraction, config.split_seed)
        super().__init__(train, validation, classes=10, config=config)


def _check_files(folder: Path) -> None:
    """Check that torchvision would open nothing but regular files.

    Raises:
        TaskDataError: the folder holds a device, a pipe or a socket.
    """
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if not path.is_dir():
                with open_file(path, "a file of the data set"):
                    pass


@contextmanager
def _without_empty_folders(folder: Path) -> Iterator[None]:
    """If the block fails, remove the folders that it made and left empty."""
    missing = list(takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    try:
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise


def _batch(dataset: Any, image_size: int) -> Batch:
    images = _channels_first(torch.as_tensor(dataset.data)).contiguous()
    return Batch(
        resized(images, image_size) if image_size else images, torch.as_tensor(dataset.targets, dtype=torch.int64)
    )


def _channels_first(images: Tensor) -> Tensor:
    """[batch, height, width] or [batch, height, width, channels] as [batch, channels, height, width]."""
    return images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1)
