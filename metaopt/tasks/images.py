"""What tasks with images share: bytes made ready for a network, and training images that vary."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from ..core.rng import generator
from .base import Batch
from .classification import Classification

Images = Float[Tensor, "batch channels height width"]


class VariedImages(Classification):
    """Name what an image shows; training images are shifted and mirrored as a subclass says."""

    shift: int = 0
    """Largest shift [pixels]."""
    flip: bool = False
    """Whether half of them show their mirror image."""

    def batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """One epoch of varied training batches; order and changes depend on the random seed and the epoch alone."""
        random = generator(seed, epoch, self.shift)
        return varied(super().batches(batch_size, seed, epoch), random, self.shift, self.flip)


def standardised(
    images: UInt8[Tensor, "batch channels height width"],
    mean: Float[Tensor, "channels 1 1"],
    std: Float[Tensor, "channels 1 1"],
) -> Images:
    """Stored bytes as numbers around 0.

    Args:
        mean, std: of each channel of the training images [0 to 1].
    """
    return (images.float() / 255 - mean) / std


def resized(
    images: Shaped[Tensor, "batch channels height width"], size: int
) -> Shaped[Tensor, "batch channels size size"]:
    """Images, as numbers or as stored bytes, as square ones of another size [pixels]."""
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def varied(batches: Iterable[Batch], random: torch.Generator, shift: int = 0, flip: bool = False) -> Iterator[Batch]:
    """The same batches with images that are shifted and flipped at random.

    Args:
        shift: largest shift [pixels].
        flip: whether half of them show their mirror image.
    """
    for images, labels in batches:
        images = shifted(images, shift, random) if shift else images
        yield Batch(flipped(images, random) if flip else images, labels)


def shifted(images: Images, pixels: int, random: torch.Generator) -> Images:
    """Move each image by up to some pixels up or down, left or right; its darkest value fills the gap."""
    count, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4, value=float(images.min()))
    down, right = torch.randint(0, 2 * pixels + 1, (2, count, 1, 1), generator=random)
    rows = down + torch.arange(height).reshape(1, -1, 1)
    columns = right + torch.arange(width).reshape(1, 1, -1)
    return padded[torch.arange(count).reshape(-1, 1, 1), :, rows, columns].movedim(-1, 1)


def flipped(images: Images, random: torch.Generator) -> Images:
    """Mirror each image left to right, or not."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=random) < 0.5
    return torch.where(mirrored, images.flip(-1), images)
