"""Images in folders that are named like their classes."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..core.config import option
from ..core.errors import InvalidConfig, TaskDataError
from .base import Batch, SplitConfig, naming
from .cache import Made, cached, key_of
from .image_files import ImageFile, class_names, decode, find_images
from .images import VariedImages, standardised

log = logging.getLogger(__name__)

_VERSION = 1  # of what the cache holds
_SUMMED_AT_ONCE = 1024  # images; bounds memory
_VALUES_AT_ONCE = 2**21  # numbers in the inputs of one forward pass; bounds memory


class ImageFolderConfig(SplitConfig):
    """Where the images lie, what is made of them, and how they are divided and varied."""

    data_dir: Path = option(default=Path("data"), help="Folder with train/<class>/ and test/<class>/.")
    image_size: int = option(default=32, help="Height and width to which images are brought [pixels].", at_least=1)
    channels: int = option(default=3, help="1 for grey images, 3 for colour.")
    shift: int = option(default=0, help="Largest random shift of a training image [pixels]; 0 for none.", at_least=0)
    flip: bool = option(default=False, help="Mirror half of the training images, anew in each epoch.")
    strict: bool = option(default=False, help="Stop at an image that cannot be read, rather than leave it out.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise InvalidConfig(f"channels is {self.channels}; expected 1 (grey) or 3 (colour)")


class ImageFolder(VariedImages):
    """Name the class of an image; any folder with train/<class>/ and test/<class>/ will do.

    Images are decoded once, into the cache folder, and from then on read from there as they are needed. The test images
    judge; the other splits share the training images. Classes are numbered in the order of their names.
    """

    Config = ImageFolderConfig

    def __init__(self, config: ImageFolderConfig) -> None:
        train, test = (find_images(config.data_dir / part) for part in ("train", "test"))
        with naming(config.data_dir):
            self.class_names = class_names(train, test)
        stored, facts = cached("images", _key(config, [*train, *test]), partial(_decode_all, config, train, test))
        _report(facts["broken"], config)
        with naming(config.data_dir):
            super().__init__(
                Batch(stored["train"], stored["train_labels"]),
                Batch(stored["test"], stored["test_labels"]),
                classes=len(self.class_names),
                config=config,
                prepare=partial(standardised, mean=stored["mean"], std=stored["std"]),
            )
        self.rows_at_once = max(1, min(500, _VALUES_AT_ONCE // self.model_facts["in_features"]))
        self.shift, self.flip = config.shift, config.flip


def _key(config: ImageFolderConfig, files: Sequence[ImageFile]) -> str:
    """Changes with any of the files, their places below the folder, and what is made of them."""
    stats = [(path.relative_to(config.data_dir).as_posix(), path.stat()) for path, _ in files]
    seen = [(place, stat.st_size, stat.st_mtime_ns) for place, stat in stats]
    return key_of(_VERSION, config.image_size, config.channels, *seen)


def _decode_all(config: ImageFolderConfig, train: Sequence[ImageFile], test: Sequence[ImageFile]) -> Made:
    log.info("decoding %d images in %s", len(train) + len(test), config.data_dir)
    names = class_names(train, test)
    tensors, broken = {}, []
    for part, files in (("train", train), ("test", test)):
        tensors[part], good, reasons = _decode_part(config, files)
        tensors[f"{part}_labels"] = torch.tensor([names.index(file.class_name) for file in good], dtype=torch.int64)
        broken += reasons
    tensors["mean"], tensors["std"] = _statistics(tensors["train"])
    return Made(tensors, {"broken": broken})


def _decode_part(config: ImageFolderConfig, files: Sequence[ImageFile]) -> tuple[Tensor, list[ImageFile], list[str]]:
    """All images that can be read, their files, and why the others cannot."""
    images = torch.empty(len(files), config.channels, config.image_size, config.image_size, dtype=torch.uint8)
    good: list[ImageFile] = []
    broken: list[str] = []
    for file in files:
        try:
            images[len(good)] = decode(file.path, config.image_size, config.channels)
            good.append(file)
        except TaskDataError as error:
            broken.append(str(error))
    return images[: len(good)], good, broken


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel [0 to 1]; 1 for a deviation of 0."""
    count = max(1, images[:, 0].numel())
    sums = torch.zeros(2, images.shape[1], dtype=torch.float64)
    for piece in images.split(_SUMMED_AT_ONCE):
        values = piece.double() / 255
        sums += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
    mean, square = sums / count
    std = (square - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std < 1e-6, 1.0, std)
    return mean.float().reshape(-1, 1, 1), std.float().reshape(-1, 1, 1)


def _report(broken: Sequence[str], config: ImageFolderConfig) -> None:
    """Say which images are left out; also when they were found to be broken in an earlier run.

    Raises:
        TaskDataError: there are some, and `strict` is set.
    """
    if broken and config.strict:
        raise TaskDataError(f"{broken[0]}. {len(broken)} in all. Replace or remove them, or leave out `strict`")
    for reason in broken:
        log.warning("%s; it is left out", reason)
    if broken:
        log.warning("%d images in %s are left out; set `strict` to stop instead", len(broken), config.data_dir)
