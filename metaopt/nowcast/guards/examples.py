"""Held-out examples for guards: other ones at each nowcast, from data sets, data loaders and tensors."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Subset, TensorDataset, default_collate
from torch.utils.data.sampler import RandomSampler, SequentialSampler, SubsetRandomSampler

from ...core.devices import move
from ...core.errors import InvalidConfig
from ...core.rng import isolated
from ...core.text import shown
from ...tasks.base import Examples

BATCH_SIZE = 32
"""Examples in a batch, where the data does not say [count]."""

_POOL = 8
"""How many times the examples of a nowcast are kept of data that can only be read in its order."""

_KNOWN_SAMPLERS = (SequentialSampler, RandomSampler, SubsetRandomSampler)


class Source(Protocol):
    """Held-out examples from which each nowcast draws some."""

    def draw(self, count: int, draw: np.random.Generator) -> Iterator[Any]:
        """Batches with so many examples, or with all if there are fewer."""


class Columns:
    """Examples in memory, from which rows are read at once: tensors, or the examples of a task.

    Args:
        read: gives the batch of some rows.
        size: number of examples [count].
        batch_size: examples in a batch [count].
    """

    def __init__(self, read: Callable[[Tensor], Any], size: int, batch_size: int) -> None:
        self._read, self._size, self._batch_size = read, size, batch_size

    def draw(self, count: int, draw: np.random.Generator) -> Iterator[Any]:
        """Batches of rows that are drawn without replacement."""
        for rows in torch.tensor(_drawn(self._size, count, draw)).split(self._batch_size):
            yield self._read(rows)


class Rows:
    """The rows of a data set, read one by one and collated to batches, in this process.

    Args:
        dataset: has a length, and an example for each index.
        collate: makes a batch of examples; None if each item of the data set is a batch.
        batch_size: examples in a batch [count].
        chosen: the rows that belong to the data; all by default.
    """

    def __init__(
        self, dataset: Any, collate: Callable[[list[Any]], Any] | None, batch_size: int, chosen: Sequence[int] = ()
    ) -> None:
        self._dataset = Subset(dataset, chosen) if len(chosen) else dataset
        self._collate, self._batch_size = collate, batch_size

    def draw(self, count: int, draw: np.random.Generator) -> Iterator[Any]:
        """Batches of rows that are drawn without replacement."""
        if self._collate is None:
            count = -(-count // max(rows_of(self._dataset[0]), 1))
        rows = _drawn(len(self._dataset), count, draw)
        size = None if self._collate is None else self._batch_size
        yield from DataLoader(self._dataset, size, sampler=rows, collate_fn=self._collate)


class Pool:
    """The first batches of data that can only be read in its order; they are kept in memory.

    Args:
        batches: opens the data. It is read once, when the first examples are drawn.
        pool: how many times the examples of the first draw are kept [count].
    """

    def __init__(self, batches: Callable[[], Iterable[Any]], pool: int = _POOL) -> None:
        self._open, self._pool = batches, pool
        self._batches: list[Any] = []

    def draw(self, count: int, draw: np.random.Generator) -> Iterator[Any]:
        """Whole batches, drawn without replacement."""
        if not self._batches:
            self._batches = list(_with_examples(self._open(), self._pool * count))
        chosen = [self._batches[row] for row in draw.permutation(len(self._batches))]
        yield from _with_examples(chosen, count)


def source_of(data: Any, batch_size: int | None = None) -> Source:
    """The held-out examples in some data.

    Args:
        data: a data loader, a data set, a list of examples, tensors with one row per example (alone, in a tuple, or in
            a dictionary), or the examples of a task.
        batch_size: examples in a batch; by default that of the data loader, or 32 [count].
    Raises:
        InvalidConfig: it is something else, is empty, or can be read only once.
    """
    size = batch_size or BATCH_SIZE
    if isinstance(data, Tensor | TensorDataset | Examples) or _is_columns(data):
        return _columns(data, size)
    if isinstance(data, DataLoader):
        return _source_of_loader(data, batch_size)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Mapping | str | bytes):
        _check_size(len(data), data)
        return Rows(data, default_collate, size)
    if isinstance(data, IterableDataset):
        return Pool(lambda: DataLoader(data, size))
    check_readable_again(data)
    return Pool(lambda: data)


def check_readable_again(data: Any) -> None:
    """Check that data can be read several times.

    Raises:
        InvalidConfig: it cannot, or is no data.
    """
    if not isinstance(data, Iterable):
        raise InvalidConfig(
            f"the held-out data is {shown(data)}; expected a DataLoader, a data set, or tensors with one row per "
            "example"
        )
    if not isinstance(data, DataLoader) and iter(data) is data:
        raise InvalidConfig(
            f"the held-out data is a {type(data).__name__}, which can be read only once. Give a DataLoader, a data set "
            "or a list"
        )


def without_workers(loader: Iterable[Any]) -> Iterable[Any]:
    """A data loader that starts no workers; other data as it is."""
    if type(loader) is not DataLoader or not loader.num_workers:
        return loader
    copied = object.__new__(DataLoader)
    alone = {"num_workers": 0, "persistent_workers": False, "prefetch_factor": None, "_iterator": None}
    copied.__dict__.update({**loader.__dict__, **alone})
    return copied


@contextmanager
def generators_restored(loader: Iterable[Any]) -> Iterator[None]:
    """Restore the generators of a data loader after the block."""
    holders = [loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    found = [getattr(holder, "generator", None) for holder in holders]
    states = [(each, each.get_state()) for each in found if isinstance(each, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def rows_of(batch: Any) -> int:
    """Number of examples in a batch: that of its first tensor; 1 if it has none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((rows_of(part) for part in parts if isinstance(part, Tensor | Mapping | list | tuple)), 1)


def moved_to(batch: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """A batch with its tensors on a device; tuples, lists and dictionaries keep their types.

    Args:
        batch: tensors, in any nesting.
        device: the device.
        dtype: of the floating-point tensors; None leaves them as they are.
    """
    if isinstance(batch, Tensor):
        batch = batch if batch.device == device else move(batch, device)
        return batch.to(dtype) if dtype is not None and batch.is_floating_point() else batch
    if isinstance(batch, Mapping):
        if type(batch) is not dict and hasattr(batch, "to"):  # of Hugging Face
            return batch.to(device)
        return {name: moved_to(part, device, dtype) for name, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved_to(part, device, dtype) for part in batch))
    return type(batch)(moved_to(part, device, dtype) for part in batch) if isinstance(batch, list | tuple) else batch


def _source_of_loader(loader: DataLoader[Any], batch_size: int | None) -> Source:
    dataset, sampler, batches = loader.dataset, loader.sampler, loader.batch_sampler
    in_order = isinstance(dataset, IterableDataset) or type(sampler) not in _KNOWN_SAMPLERS
    if type(loader) is not DataLoader or in_order or type(batches) not in (BatchSampler, type(None)):

        def read() -> Iterator[Any]:
            with isolated(), generators_restored(loader):
                yield from without_workers(loader)

        return Pool(read)
    _check_size(len(dataset), dataset)  # type: ignore[arg-type]
    chosen = list(sampler.indices) if isinstance(sampler, SubsetRandomSampler) else []
    size = batch_size or loader.batch_size or BATCH_SIZE
    if isinstance(dataset, TensorDataset) and loader.collate_fn is default_collate and not chosen:
        return _columns(dataset, size)
    return Rows(dataset, loader.collate_fn if batches is not None else None, size, chosen)


def _is_columns(data: Any) -> bool:
    parts = data.values() if isinstance(data, dict) else data if isinstance(data, tuple) else ()
    return bool(parts) and all(isinstance(part, Tensor) for part in parts)


def _columns(data: Any, batch_size: int) -> Columns:
    if isinstance(data, Examples):
        _check_size(len(data), data)
        return Columns(data.__getitem__, len(data), batch_size)
    parts = data.tensors if isinstance(data, TensorDataset) else data
    tensors = list(parts.values()) if isinstance(parts, dict) else [parts] if isinstance(parts, Tensor) else list(parts)
    sizes = {len(tensor) if tensor.dim() else 0 for tensor in tensors}
    if len(sizes) > 1:
        raise InvalidConfig(
            f"the held-out data is {len(tensors)} tensors with {', '.join(map(str, sorted(sizes)))} rows; expected one "
            "row per example in each"
        )
    _check_size(sizes.pop(), data)

    def read(rows: Tensor) -> Any:
        if isinstance(parts, Tensor):
            return parts[rows]
        if isinstance(parts, dict):
            return {name: part[rows] for name, part in parts.items()}
        return tuple(part[rows] for part in parts)

    return Columns(read, len(tensors[0]), batch_size)


def _check_size(size: int, data: Any) -> None:
    if not size:
        raise InvalidConfig(f"the held-out data ({type(data).__name__}) is empty; expected examples")


def _drawn(size: int, count: int, draw: np.random.Generator) -> list[int]:
    """Some of `size` rows, in ascending order; without replacement."""
    chosen: list[int] = np.sort(draw.choice(size, min(count, size), replace=False)).tolist()
    return chosen


def _with_examples(batches: Iterable[Any], count: int) -> Iterator[Any]:
    """The first batches, until they contain so many examples."""
    seen = 0
    for batch in batches:
        yield batch
        seen += rows_of(batch)
        if seen >= count:
            return
