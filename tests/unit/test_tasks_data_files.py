"""Which files of a folder are read, and how a file is opened."""

import os
import socket
from pathlib import Path

import pytest

from metaopt.core.errors import TaskDataError
from metaopt.tasks import data_files
from metaopt.tasks.data_files import find_files, open_file, open_text


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "a" / "deep").mkdir(parents=True)
    for name in ("1.txt", "a/2.TXT", "a/deep/3.txt"):
        (tmp_path / "data" / name).write_text(name)
    return tmp_path / "data"


def found(folder, **options):
    (one,) = find_files([folder], [".txt"], **options)
    return one


def names(one, folder):
    return [path.relative_to(folder).as_posix() for path in one.files]


ALL = ["1.txt", "a/2.TXT", "a/deep/3.txt"]


def test_endings_in_upper_case_are_found_at_any_depth(folder):
    one = found(folder)
    assert names(one, folder) == ALL
    assert one.folders == [folder / "a"]
    assert one.notes("data") == []
    assert names(found(folder, deep=False), folder) == ["1.txt"]
    assert found(folder, deep=False).notes("data") == ["data: ignored 1 folder"]


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".git"])
@pytest.mark.parametrize("inside", ["", "a", "a/deep"])
def test_hidden_and_system_folders_are_counted_at_any_depth(folder, name, inside):
    (folder / inside / name).mkdir()
    (folder / inside / name / "4.txt").write_text("copy")
    one = found(folder)
    assert names(one, folder) == ALL
    assert one.notes("data") == ["data: ignored 1 hidden or system folder"]


def test_ignored_files_are_counted_by_reason(folder):
    for name in (".DS_Store", "Thumbs.db", "a/._2.TXT", "a/4.md", "5.pdf", "6.MD", "README"):
        (folder / name).write_text("")
    (note,) = found(folder).notes("data")
    assert note == "data: ignored 3 hidden or system files, 4 files with other endings (.md 2, .pdf 1, none 1)"


def test_a_link_out_of_the_folder_is_followed_and_counted(folder, tmp_path):
    (tmp_path / "pool" / "sub").mkdir(parents=True)
    (tmp_path / "pool" / "sub" / "4.txt").write_text("4")
    (tmp_path / "5.txt").write_text("5")
    (folder / "pool").symlink_to(tmp_path / "pool")
    (folder / "5.txt").symlink_to(tmp_path / "5.txt")
    one = found(folder)
    assert names(one, folder) == ["1.txt", "5.txt", *ALL[1:], "pool/sub/4.txt"]
    assert one.notes("data") == ["data: followed 2 links out of it"]


@pytest.mark.parametrize("target", [".", "..", "a", "a/deep/3.txt", "1.txt"])
def test_nothing_is_read_twice_through_a_link(folder, target):
    (folder / "a" / "link.txt").symlink_to(folder / target)
    one = found(folder)
    assert names(one, folder) == ALL
    assert one.notes("data") == ["data: ignored 1 link to what is read already"]


def test_two_links_to_one_file_are_one_file(folder, tmp_path):
    (tmp_path / "4.txt").write_text("4")
    for name in ("x.txt", "y.txt"):
        (folder / name).symlink_to(tmp_path / "4.txt")
    one = found(folder)
    assert names(one, folder) == [*ALL, "x.txt"]
    assert "1 link to what is read already" in one.notes("data")[0]


def test_a_link_from_one_folder_into_another_is_ignored(folder, tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.txt").symlink_to(folder / "1.txt")
    _, test = find_files([folder, tmp_path / "test"], [".txt"])
    assert test.files == []
    assert test.ignored[data_files.SECOND_LINKS] == 1


@pytest.mark.parametrize("target", ["nowhere", "loop.txt"])
def test_broken_links_are_counted(folder, target):
    (folder / "loop.txt").symlink_to(folder / target)
    assert found(folder).notes("data") == ["data: ignored 1 broken link"]


def special(path):
    """A named pipe, a socket and a link to a device."""
    os.mkfifo(path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path / "socket.txt"))
    (path / "zero.txt").symlink_to("/dev/zero")
    return [path / name for name in ("pipe.txt", "socket.txt", "zero.txt")]


def test_devices_pipes_and_sockets_are_counted(folder, monkeypatch):
    monkeypatch.chdir(folder)
    special(folder)
    one = found(folder)
    assert names(one, folder) == ALL
    assert one.notes("data") == ["data: ignored 3 devices, pipes or sockets"]


def test_only_regular_files_are_opened(folder, monkeypatch):
    monkeypatch.chdir(folder)
    kinds = ["a pipe", "a socket", "a device", "a folder", "a file of the system"]
    for path, kind in zip([*special(folder), folder, Path("/proc/version")], kinds, strict=True):
        with pytest.raises(TaskDataError, match=f"{path}: it is {kind}; expected text"), open_file(path, "text"):
            pass


def test_a_file_that_is_exchanged_for_a_pipe_is_not_opened(folder, monkeypatch):
    os.mkfifo(folder / "pipe.txt")
    regular = (folder / "1.txt").stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: regular)
    with pytest.raises(TaskDataError, match="a pipe"), open_file(folder / "pipe.txt", "text"):
        pass


@pytest.mark.parametrize("name", ["nowhere.txt", "1.txt/inside", "x" * 300, "nul\0byte"])
def test_a_missing_file_is_an_error_of_the_data(folder, name):
    message = r"cannot read .*; expected text\. Check data_dir"
    with pytest.raises(TaskDataError, match=message), open_file(folder / name, "text"):
        pass


@pytest.mark.parametrize("link", [".", "a"])
def test_folders_that_overlap_are_refused(folder, tmp_path, link):
    (tmp_path / "test").symlink_to(folder / link)
    with pytest.raises(TaskDataError, match=r"data and .*test overlap"):
        find_files([folder, tmp_path / "test"], [".txt"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
def test_a_byte_order_mark_states_the_encoding(folder, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (folder / "1.txt").write_bytes((mark + "für\r\nmich").encode(encoding))
    with open_text(folder / "1.txt", "text") as file:
        assert file.read() == "für\r\nmich"
