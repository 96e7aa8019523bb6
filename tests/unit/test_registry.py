"""Registries find classes by name and suggest the nearest names for unknown ones."""

from importlib.metadata import EntryPoint

import pytest

from metaopt.core import registry
from metaopt.core.errors import UnknownName
from metaopt.core.registry import Registry, load_path, suggest

TABLE = {"Alpha": "collections:OrderedDict", "Beta": "collections:Counter"}


def test_names_of_plug_ins_are_found_with_those_of_metaopt(monkeypatch):
    point = EntryPoint("Gamma", "collections:deque", "some.group")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    names = Registry("thing", "some.group", TABLE)
    assert names.names() == ["Alpha", "Beta", "Gamma"]
    assert names.get("Gamma").__name__ == "deque"
    assert names.get("Alpha").__name__ == "OrderedDict"


def test_an_unknown_name_raises_with_the_nearest_names():
    with pytest.raises(UnknownName, match=r"unknown thing 'alfa': did you mean Alpha\? \(known are Alpha, Beta\)"):
        Registry("thing", "metaopt.none", TABLE).get("alfa")


def test_without_a_near_name_all_names_are_suggested():
    assert suggest("zzz", ["Alpha", "Beta"]) == "known are Alpha, Beta"


def test_a_name_has_an_origin(monkeypatch):
    point = EntryPoint("Gamma", "collections:deque", "some.group")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    names = Registry("thing", "some.group", TABLE)
    assert names.origin("Alpha") == "metaopt"
    assert names.origin("Gamma") == "collections"
    with pytest.raises(UnknownName, match="unknown thing 'Delta'"):
        names.origin("Delta")


def test_a_plug_in_that_cannot_be_imported_raises_with_the_reason(monkeypatch):
    point = EntryPoint("Gamma", "a_package_that_is_not_there:Gamma", "some.group")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(UnknownName, match=r"cannot be imported .*No module named 'a_package_that_is_not_there'"):
        Registry("thing", "some.group", TABLE).get("Gamma")


def test_a_path_is_imported():
    assert load_path("collections:OrderedDict").__name__ == "OrderedDict"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("collections:OrderdDict", "did you mean OrderedDict"),
        ("collections:", "collections has no ''"),
        ("a_package_that_is_not_there:x", "ModuleNotFoundError"),
        (":x", "Empty module name"),
        (".relative:x", "importing '.relative' fails"),
    ],
)
def test_an_invalid_path_raises_with_the_reason(path, message):
    with pytest.raises(UnknownName, match=message):
        load_path(path)
