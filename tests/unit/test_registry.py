"""Names lead to classes, and mistyped ones to the nearest."""

from importlib.metadata import EntryPoint

import pytest

from metaopt.core import registry
from metaopt.core.errors import UnknownName
from metaopt.core.registry import Registry, load_path, suggest

TABLE = {"Alpha": "collections:OrderedDict", "Beta": "collections:Counter"}


def test_a_plug_in_of_another_package_is_found_beside_our_own(monkeypatch):
    point = EntryPoint("Gamma", "collections:deque", "some.group")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    names = Registry("thing", "some.group", TABLE)
    assert names.names() == ["Alpha", "Beta", "Gamma"]
    assert names.get("Gamma").__name__ == "deque"
    assert names.get("Alpha").__name__ == "OrderedDict"


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(UnknownName, match=r"unknown thing 'alfa': did you mean Alpha\? \(known are Alpha, Beta\)"):
        Registry("thing", "metaopt.none", TABLE).get("alfa")


def test_far_names_get_all_that_are_known():
    assert suggest("zzz", ["Alpha", "Beta"]) == "known are Alpha, Beta"


def test_a_name_has_an_origin(monkeypatch):
    point = EntryPoint("Gamma", "collections:deque", "some.group")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    names = Registry("thing", "some.group", TABLE)
    assert names.origin("Alpha") == "metaopt"
    assert names.origin("Gamma") == "collections"
    with pytest.raises(UnknownName, match="unknown thing 'Delta'"):
        names.origin("Delta")


def test_a_plug_in_that_cannot_be_imported_says_why(monkeypatch):
    point = EntryPoint("Gamma", "a_package_that_is_not_there:Gamma", "some.group")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(UnknownName, match=r"cannot be imported .*No module named 'a_package_that_is_not_there'"):
        Registry("thing", "some.group", TABLE).get("Gamma")


def test_a_path_leads_to_the_object_there():
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
def test_a_path_to_nothing_says_what_is_missing(path, message):
    with pytest.raises(UnknownName, match=message):
        load_path(path)
