"""Image files of any kind, found in the folders of their classes and decoded to squares of one size."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from ..core.errors import TaskDataError

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LAYOUT = "expected train/<class>/<image> and test/<class>/<image>"

_DEEP = ("I", "I;16", "I;16B", "I;16L")  # modes of grey images with 16 bits, which convert() would cut off at 255


class ImageFile(NamedTuple):
    """A file and the name of its class."""

    path: Path
    class_name: str


def find_images(folder: Path) -> list[ImageFile]:
    """The images in a folder that holds a folder for each class, in an order that depends on their names alone.

    Raises:
        TaskDataError: there is no such folder, or it holds no images in folders.
    """
    if not folder.is_dir():
        raise TaskDataError(f"there is no folder {folder}; {LAYOUT}. Check data_dir")
    images = [ImageFile(path, inside.name) for inside in _visible(folder) for path in _images_below(inside)]
    if not images:
        raise TaskDataError(f"{folder} holds no images in folders; {LAYOUT}, with names that end in {_endings()}")
    return images


def class_names(train: Sequence[ImageFile], test: Sequence[ImageFile]) -> list[str]:
    """The names of all classes, sorted.

    Raises:
        TaskDataError: there is only one, or the test images show one that cannot be learned.
    """
    names = sorted({image.class_name for image in train})
    if unknown := sorted({image.class_name for image in test} - set(names)):
        raise TaskDataError(
            f"no training images for {', '.join(unknown)}, of which there are test images; the classes in train/ are "
            f"{', '.join(names)}. Add such images, or remove the folder from test/"
        )
    if len(names) < 2:
        raise TaskDataError(f"all training images are of one class, {names[0]}; {LAYOUT}, with two classes or more")
    return names


def decode(path: Path, size: int, channels: int) -> UInt8[Tensor, "channels size size"]:
    """Read an image upright; what is not a square of the size is resized and its middle is taken.

    Transparent places are shown on white, and 16 bits brought to 8.

    Raises:
        TaskDataError: it cannot be read.
    """
    try:
        with Image.open(path) as file:
            image = _plain(ImageOps.exif_transpose(file)).convert("L" if channels == 1 else "RGB")
        if image.size != (size, size):
            image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # decoders raise almost anything when bytes are wrong
        raise TaskDataError(f"{path} cannot be read as an image ({type(error).__name__}: {error})") from error
    return torch.from_numpy(np.array(image)).reshape(size, size, channels).movedim(-1, 0)


def _plain(image: Image.Image) -> Image.Image:
    """The same without transparency, and with at most 8 bits to a number."""
    if image.mode in _DEEP:
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    """Its images; a class that has none is most likely a mistake.

    Raises:
        TaskDataError: there are none.
    """
    images = [path for path in folder.rglob("[!.]*") if path.suffix.lower() in ENDINGS and path.is_file()]
    if not images:
        raise TaskDataError(f"{folder} holds no images; fill it with files that end in {_endings()}, or remove it")
    return sorted(images, key=Path.as_posix)


def _endings() -> str:
    return ", ".join(ENDINGS)
