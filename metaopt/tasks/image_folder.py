"""Image classification on a folder of image files: train/<class>/<image> and test/<class>/<image>."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import PIL
import torch
from torch import Tensor

from ..core.config import option
from ..core.errors import InvalidConfig, TaskDataError
from ..core.text import counted
from .base import Batch, SplitConfig, error_source
from .cache import CacheEntry, cache_key, cached
from .data_files import Found, find_files, report
from .image_augmentation import AugmentedClassification, standardised
from .image_files import SUFFIXES, ImageFacts, ValueRange, decode, inspect, value_range

log = logging.getLogger(__name__)

_CACHE_VERSION = 2
_SUMMED_AT_ONCE = 1024  # images; bounds memory
_VALUES_AT_ONCE = 2**21  # numbers in the inputs of one forward pass; bounds memory
_EXPECTED = "expected train/<class>/<image> and test/<class>/<image>"


class ImageFolderConfig(SplitConfig):
    """Files, image size, augmentation and splits of an image folder."""

    data_dir: Path = option(default=Path("data"), help="Folder with train/<class>/ and test/<class>/.")
    image_size: int = option(default=32, help="Height and width to resize images to [pixels].", at_least=1)
    channels: int = option(default=3, help="1 for grey images, 3 for colour.")
    shift: int = option(default=0, help="Largest random shift of a training image [pixels]; 0 for none.", at_least=0)
    flip: bool = option(default=False, help="Mirror a random half of the training images in each epoch.")
    strict: bool = option(default=False, help="Stop at an unreadable image instead of skipping it.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise InvalidConfig(f"channels is {self.channels}; expected 1 (grey) or 3 (colour)")


class ImageFolder(AugmentedClassification):
    """Classify the images of a folder with train/<class>/ and test/<class>/.

    The images are decoded once into the cache folder and memory-mapped from there. The test images are the validation
    split; the training images are divided into the other splits. Class indices follow the sorted names.
    """

    Config = ImageFolderConfig

    def __init__(self, config: ImageFolderConfig) -> None:
        train, test, notes = find_images(config.data_dir)
        with error_source(config.data_dir):
            self.class_names = class_names(train, test)
        stored, facts = cached("images", _key(config, [*train, *test]), partial(_decode_all, config, train, test))
        _report_skipped(facts["broken"], config)
        self.notes = report([*notes, *facts["notes"]])
        with error_source(config.data_dir):
            super().__init__(
                Batch(stored["train"], stored["train_labels"]),
                Batch(stored["test"], stored["test_labels"]),
                classes=len(self.class_names),
                config=config,
                prepare=partial(standardised, mean=stored["mean"], std=stored["std"]),
            )
        self.rows_at_once = max(1, min(500, _VALUES_AT_ONCE // self.model_facts["in_features"]))
        self.shift, self.flip = config.shift, config.flip


class ImageFile(NamedTuple):
    """An image file and the name of its class."""

    path: Path
    class_name: str


def find_images(folder: Path) -> tuple[list[ImageFile], list[ImageFile], list[str]]:
    """The training images and the test images, sorted by path, and what a user must know of the search.

    Raises:
        TaskDataError: a folder or its images are missing, or train/ and test/ overlap.
    """
    parts = [folder / name for name in ("train", "test")]
    found = dict(zip(parts, find_files([part for part in parts if part.is_dir()], SUFFIXES), strict=False))
    train, test = (_by_class(part, found.get(part)) for part in parts)
    return train, test, [note for part in parts for note in found[part].notes(str(part))]


def _by_class(part: Path, found: Found | None) -> list[ImageFile]:
    """The images that are inside class folders; others are counted as ignored."""
    if found is None:
        raise TaskDataError(f"there is no folder {part}; {_EXPECTED}. Check data_dir")
    inside = [path for path in found.files if path.parent != part]
    if outside := len(found.files) - len(inside):
        found.ignored["image(s) outside of class folders"] += outside
    images = [ImageFile(path, path.relative_to(part).parts[0]) for path in inside]
    if not images:
        raise TaskDataError(f"{part} holds no images in folders; {_EXPECTED}, with names that end in {_suffixes()}")
    if empty := sorted({folder.name for folder in found.folders} - {image.class_name for image in images}):
        raise TaskDataError(  # most likely a mistake, so not just a class without examples
            f"{part / empty[0]} holds no images; fill it with files that end in {_suffixes()}, or remove it"
        )
    return images


def class_names(train: Sequence[ImageFile], test: Sequence[ImageFile]) -> list[str]:
    """The sorted names of the classes.

    Raises:
        TaskDataError: there is only one class, or a class has test images but no training images.
    """
    names = sorted({image.class_name for image in train})
    if unknown := sorted({image.class_name for image in test} - set(names)):
        raise TaskDataError(
            f"no training images for {', '.join(unknown)}, which has test images; the classes in train/ are "
            f"{', '.join(names)}. Add such images, or remove the folder from test/"
        )
    if len(names) < 2:
        raise TaskDataError(f"all training images are of one class, {names[0]}; {_EXPECTED}, with two classes or more")
    return names


def _suffixes() -> str:
    return ", ".join(SUFFIXES)


def _key(config: ImageFolderConfig, files: Sequence[ImageFile]) -> str:
    """A cache key of the files, their paths in the folder, the size and channels of the decoded images, and Pillow."""
    stats = [(path.relative_to(config.data_dir).as_posix(), path.stat()) for path, _ in files]
    versions = [(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in stats]
    return cache_key(_CACHE_VERSION, PIL.__version__, config.image_size, config.channels, *versions)


def _decode_all(config: ImageFolderConfig, train: Sequence[ImageFile], test: Sequence[ImageFile]) -> CacheEntry:
    log.info("decoding %d images in %s", len(train) + len(test), config.data_dir)
    names = class_names(train, test)
    inspected = _inspect_all([*train, *test])
    values = value_range([facts.extremes for facts in inspected if facts.extremes])
    tensors, broken = {}, []
    for part, files in (("train", train), ("test", test)):
        tensors[part], readable, reasons = _decode_part(config, files, values)
        tensors[f"{part}_labels"] = torch.tensor([names.index(file.class_name) for file in readable], dtype=torch.int64)
        broken += reasons
    tensors["mean"], tensors["std"] = _statistics(tensors["train"])
    return CacheEntry(tensors, {"broken": broken, "notes": _notes(config, inspected, values)})


def _inspect_all(files: Sequence[ImageFile]) -> list[ImageFacts]:
    """The facts of all readable files; the others are reported when they are decoded."""
    found: list[ImageFacts] = []
    for file in files:
        with suppress(TaskDataError):
            found.append(inspect(file.path))
    return found


def _notes(config: ImageFolderConfig, inspected: Sequence[ImageFacts], values: ValueRange | None) -> list[str]:
    several = sum(facts.several for facts in inspected)
    notes = [f"{config.data_dir}: read the first image of {counted(several, 'file')} with several"] if several else []
    if values:
        count = sum(facts.extremes is not None for facts in inspected)
        notes.append(
            f"{config.data_dir}: {counted(count, 'image')} of more than 8 bits; {values.low:g} becomes black and "
            f"{values.high:g} white, the usual range that contains all their values"
        )
    return notes


def _decode_part(
    config: ImageFolderConfig, files: Sequence[ImageFile], values: ValueRange | None
) -> tuple[Tensor, list[ImageFile], list[str]]:
    """The decoded images, their files, and the errors of unreadable files."""
    images = torch.empty(len(files), config.channels, config.image_size, config.image_size, dtype=torch.uint8)
    readable: list[ImageFile] = []
    broken: list[str] = []
    for file in files:
        try:
            images[len(readable)] = decode(file.path, config.image_size, config.channels, values)
            readable.append(file)
        except TaskDataError as error:
            broken.append(str(error))
    return images[: len(readable)], readable, broken


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel [0 to 1]; a deviation of 0 becomes 1."""
    count = max(1, images[:, 0].numel())
    sums = torch.zeros(2, images.shape[1], dtype=torch.float64)
    for chunk in images.split(_SUMMED_AT_ONCE):
        values = chunk.double() / 255
        sums += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
    mean, square = sums / count
    std = (square - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std < 1e-6, 1.0, std)
    return mean.float().reshape(-1, 1, 1), std.float().reshape(-1, 1, 1)


def _report_skipped(broken: Sequence[str], config: ImageFolderConfig) -> None:
    """Warn about unreadable images in each run, not only in the run that decodes them.

    Raises:
        TaskDataError: there are some, and `strict` is set.
    """
    if broken and config.strict:
        raise TaskDataError(f"{broken[0]}. {len(broken)} in all. Replace or remove them, or leave out `strict`")
    for reason in broken:
        log.warning("%s; it is skipped", reason)
    if broken:
        log.warning("%d images in %s are skipped; set `strict` to stop instead", len(broken), config.data_dir)
