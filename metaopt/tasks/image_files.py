"""Image files as 8-bit squares: opening, orientation, the range of values, transparency, size.

Values of more than 8 bits have no stated range: 16-bit files hold 12-bit values, and floats go to 1 or to 255. So
`inspect` reads the values of all such files of a data set first, and `value_range` chooses one range for all of them.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from ..core.errors import TaskDataError
from ..core.text import reason_of
from .data_files import open_file

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Endings of the files that are read as images, in lower case."""

_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # others, such as EPS, start programs
_WHOLE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's convert() would clip them at 255
_WHOLE_RANGES = tuple((0.0, 2.0**bits - 1) for bits in (8, 10, 12, 14, 16))
_FLOAT_RANGES = ((0.0, 1.0), (-1.0, 1.0), *_WHOLE_RANGES)
_DARKEST = 63  # of 255; where all upper bytes are below, values of 16 bits are most likely of 14 or fewer
_EXPECTED = "an image file"


Kind = Literal["whole", "floats", "upper"]


class ValueRange(NamedTuple):
    """The values of an image that become black and white."""

    low: float
    high: float


class Extremes(NamedTuple):
    """The smallest and the largest value of an image of more than 8 bits.

    Attributes:
        kind: "whole" numbers, "floats", or "upper": the upper 8 of 16 bits, which are all that Pillow reads of colours.
    """

    path: Path
    low: float
    high: float
    kind: Kind


class ImageFacts(NamedTuple):
    """What `inspect` finds in a file.

    Attributes:
        extremes: None for an image of 8 bits.
        several: whether the file has several images, of which the first is read.
    """

    extremes: Extremes | None
    several: bool


def inspect(path: Path) -> ImageFacts:
    """Find what must be known of all images of a data set before the first one is decoded.

    Raises:
        TaskDataError: the file cannot be read as an image.
    """
    with _opened(path) as image:
        return ImageFacts(_extremes(path, image), several=bool(getattr(image, "is_animated", False)))


def value_range(images: Sequence[Extremes]) -> ValueRange | None:
    """The range of a data set's images of more than 8 bits: the smallest usual one that contains all values.

    Whole numbers: 0 to 255, 1,023, 4,095, 16,383 or 65,535. Floats: 0 to 1, −1 to 1, or one of those.

    Returns: None if there are no such images.
    Raises:
        TaskDataError: no usual range contains all values; or some files hold floats and others whole numbers.
    """
    colours, numbers = ([image for image in images if (image.kind == "upper") is each] for each in (True, False))
    if colours and (brightest := max(colours, key=attrgetter("high"))).high <= _DARKEST:
        raise TaskDataError(
            f"{brightest.path} has colours of 16 bits, and neither it nor another such image is brighter than a "
            "quarter; most likely fewer bits are in use, and Pillow reads the upper 8 of 16. Convert them to 8 bits"
        )
    return _range_of(numbers) if numbers else None


def decode(
    path: Path, size: int, channels: int, values: ValueRange | None = None
) -> UInt8[Tensor, "channels size size"]:
    """Read the first image of a file, rotate it upright, and resize and crop its centre to a square.

    Transparent pixels become white.

    Args:
        values: the range of values of more than 8 bits; by default from this file alone.
    Raises:
        TaskDataError: the file cannot be read as an image, or its values lie outside of all usual ranges.
    """
    values = values or _own_range(path)
    with _opened(path) as file:
        image = _opaque(ImageOps.exif_transpose(file), values).convert("L" if channels == 1 else "RGB")
        if image.size != (size, size):
            image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).reshape(size, size, channels).movedim(-1, 0)


def _range_of(images: Sequence[Extremes]) -> ValueRange:
    if len({image.kind for image in images}) > 1:
        first, other = (next(image.path for image in images if image.kind == kind) for kind in ("floats", "whole"))
        raise TaskDataError(
            f"{first} has floats, {other} whole numbers of more than 8 bits; expected one kind, because all images "
            "are scaled alike. Convert one of them"
        )
    lowest, highest = min(images, key=attrgetter("low")), max(images, key=attrgetter("high"))
    floats = lowest.kind == "floats"
    for low, high in _FLOAT_RANGES if floats else _WHOLE_RANGES:
        if low <= lowest.low and highest.high <= high:
            return ValueRange(low, high)
    raise TaskDataError(
        f"the values of the images go from {lowest.low:g} ({lowest.path}) to {highest.high:g} ({highest.path}); "
        f"expected {'0 to 1, -1 to 1 or ' if floats else ''}0 to 65535. Convert them to such a range"
    )


def _own_range(path: Path) -> ValueRange | None:
    extremes = inspect(path).extremes
    return value_range([extremes] if extremes else [])


def _extremes(path: Path, image: Image.Image) -> Extremes | None:
    if not (_has_upper_bytes(image) or _has_range(image)):
        return None
    if image.format == "PPM":  # Pillow scales its values by the range that the file states
        return Extremes(path, *_WHOLE_RANGES[-1], "whole")
    kind: Kind = "floats" if image.mode == "F" else "whole" if _has_range(image) else "upper"
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    return Extremes(path, float(values.min()), float(values.max()), kind)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with open_file(path, _EXPECTED) as file, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_formats()) as image:
                yield image
    except TaskDataError:
        raise
    except Exception as error:  # decoders raise many types on invalid bytes
        raise TaskDataError(f"{path} cannot be read as an image ({reason_of(error)})") from error


@cache
def _formats() -> list[str]:
    """The formats that this Pillow reads."""
    readable = set(Image.registered_extensions().values())
    return [each for each in _FORMATS if each in readable]


def _has_range(image: Image.Image) -> bool:
    """Whether the values are not bytes."""
    return image.mode == "F" or image.mode in _WHOLE_MODES


def _has_upper_bytes(image: Image.Image) -> bool:
    """Whether Pillow reads the upper 8 of 16 bits, as of colour images: nothing is left of a 12-bit value."""
    return not _has_range(image) and any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))


def _opaque(image: Image.Image, values: ValueRange | None) -> Image.Image:
    """The image without transparency, with at most 8 bits per value."""
    if _has_range(image):
        low, high = values or _WHOLE_RANGES[-1]
        scaled = (np.asarray(image).astype(np.float64) - low) * (255 / (high - low))
        return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    transparent = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)
