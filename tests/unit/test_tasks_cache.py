import pytest
import torch

from metaopt.tasks import cache
from metaopt.tasks.cache import CacheEntry, cache_dir, cache_key, cached


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Computation:
    calls = 0

    def __call__(self):
        self.calls += 1
        return CacheEntry({"numbers": torch.arange(5)}, {"names": ["a"]})


def test_is_computed_once_and_then_read():
    make = Computation()
    first, again = cached("numbers", "key", make), cached("numbers", "key", make)
    assert make.calls == 1
    assert torch.equal(first.tensors["numbers"], again.tensors["numbers"])
    assert first.facts == again.facts == {"names": ["a"]}


def test_another_key_is_another_entry():
    make = Computation()
    cached("numbers", "key", make), cached("numbers", "other", make)
    assert make.calls == 2


@pytest.mark.parametrize("damage", [lambda data: data[:50], lambda data: data[:-1] + b"!", lambda data: b""])
def test_a_damaged_file_is_computed_again(damage, caplog):
    make = Computation()
    cached("numbers", "key", make)
    path = cache_dir() / "numbers-key.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(cached("numbers", "key", make).tensors["numbers"], torch.arange(5))
    assert make.calls == 2
    assert "computed again" in caplog.text
    cached("numbers", "key", make)
    assert make.calls == 2


def test_an_entry_in_the_place_of_another_is_computed_again(caplog):
    cached("numbers", "other", lambda: CacheEntry({"numbers": torch.zeros(5)}, {}))
    (cache_dir() / "numbers-other.safetensors").rename(cache_dir() / "numbers-key.safetensors")
    assert torch.equal(cached("numbers", "key", Computation()).tensors["numbers"], torch.arange(5))
    assert "computed again" in caplog.text


def test_a_cache_that_cannot_be_written_gives_a_warning(home, caplog):
    home.write_text("a file where the folder should be")
    make = Computation()
    assert torch.equal(cached("numbers", "key", make).tensors["numbers"], torch.arange(5))
    assert "This run continues" in caplog.text


def test_is_in_the_home_folder_unless_xdg_cache_home_is_set(home, monkeypatch):
    assert cache_dir() == home / "metaopt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(cache_dir()) == "/somewhere/.cache/metaopt"


def test_keys_differ_where_the_parts_are_divided_differently():
    assert len({cache_key("ab", "c"), cache_key("a", "bc"), cache_key("abc"), cache_key("ab", "c", "")}) == 4


@pytest.mark.parametrize(("old", "new"), [("Made", CacheEntry), ("key_of", cache_key)])
def test_names_of_0_1_are_deprecated(old, new):
    with pytest.warns(DeprecationWarning, match=f"tasks.cache.{old} is deprecated"):
        assert getattr(cache, old) is new
