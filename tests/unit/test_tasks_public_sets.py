"""Public data sets: only regular files are read, and folders are made only for a download."""

import os
import struct
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.datasets import mnist

from metaopt.core.errors import TaskDataError
from metaopt.tasks import load_task


@pytest.fixture
def raw(tmp_path):
    """The folder of a tiny MNIST."""
    random = np.random.default_rng(0)
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 10)):
        images, labels = random.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + values.astype(np.uint8).tobytes())
    return folder


@pytest.fixture
def offline(monkeypatch):
    """Downloads fail as without a network; the list of the folders that they were to fill."""
    folders = []

    def download(url, download_root, **_):
        folders.append(download_root)
        raise URLError("no network")

    monkeypatch.setattr(mnist, "download_and_extract_archive", download)
    return folders


def load(folder, **options):
    return load_task("mnist", data_dir=folder, **options)


def test_files_that_are_there_need_no_download(raw, offline):
    assert len(load(raw.parents[1]).splits["validation"]) == 10
    assert offline == []


@pytest.mark.parametrize("inside", ["data", "data/deep/deeper"])
def test_a_download_that_fails_leaves_no_folder(tmp_path, offline, inside):
    with pytest.raises(TaskDataError, match=r"downloading them failed .*no network.*--data-dir"):
        load(tmp_path / inside)
    assert offline
    assert list(tmp_path.iterdir()) == []


def test_without_download_nothing_is_made(tmp_path, offline):
    with pytest.raises(TaskDataError, match=r"no readable MNIST files .*download is false.*--data-dir"):
        load(tmp_path / "data", download=False)
    assert offline == []
    assert list(tmp_path.iterdir()) == []


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def a_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("replace", [a_pipe, a_device])
@pytest.mark.parametrize("download", [True, False])
def test_pipes_and_devices_are_refused(raw, offline, replace, download):
    replace(raw / "train-images-idx3-ubyte")
    with pytest.raises(TaskDataError, match=f"ubyte: it is {replace.__name__.replace('_', ' ')}"):
        load(raw.parents[1], download=download)
    assert offline == []


@pytest.mark.parametrize("data_dir", ["/dev/zero", "/dev/null", "/proc/self/mem"])
@pytest.mark.parametrize("name", ["mnist", "csv", "text", "image-folder"])
def test_devices_are_no_data_folder(offline, name, data_dir):
    with pytest.raises(TaskDataError):
        load_task(name, data_dir=data_dir)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:9], lambda data: data[:-40], lambda data: b"", lambda data: b"\xff" * 99]
)
def test_damaged_files_are_an_error_of_the_data(raw, offline, damage):
    for path in raw.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    for download in (True, False):
        with pytest.raises(TaskDataError, match="no readable MNIST files"):
            load(raw.parents[1], download=download)
