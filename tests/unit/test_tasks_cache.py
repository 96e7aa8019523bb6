import pytest
import torch

from metaopt.tasks.cache import Made, cache_dir, cached, key_of


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Maker:
    calls = 0

    def __call__(self):
        self.calls += 1
        return Made({"numbers": torch.arange(5)}, {"names": ["a"]})


def test_is_made_once_and_then_read():
    make = Maker()
    first, again = cached("things", "key", make), cached("things", "key", make)
    assert make.calls == 1
    assert torch.equal(first.tensors["numbers"], again.tensors["numbers"])
    assert first.facts == again.facts == {"names": ["a"]}


def test_another_key_is_another_thing():
    make = Maker()
    cached("things", "key", make), cached("things", "other", make)
    assert make.calls == 2


@pytest.mark.parametrize("damage", [lambda data: data[:50], lambda data: data[:-1] + b"!", lambda data: b""])
def test_a_damaged_file_is_made_anew(damage, caplog):
    make = Maker()
    cached("things", "key", make)
    path = cache_dir() / "things-key.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(cached("things", "key", make).tensors["numbers"], torch.arange(5))
    assert make.calls == 2
    assert "made anew" in caplog.text
    cached("things", "key", make)
    assert make.calls == 2


def test_a_cache_that_cannot_be_written_costs_only_time(home, caplog):
    home.write_text("a file where the folder should be")
    make = Maker()
    assert torch.equal(cached("things", "key", make).tensors["numbers"], torch.arange(5))
    assert "This run goes on" in caplog.text


def test_lies_below_the_home_folder_unless_told_otherwise(home, monkeypatch):
    assert cache_dir() == home / "metaopt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(cache_dir()) == "/somewhere/.cache/metaopt"


def test_keys_tell_apart_what_only_reads_the_same():
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("ab", "c", "")}) == 4
