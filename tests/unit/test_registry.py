"""Names lead to classes, and mistyped ones to the nearest."""

from importlib.metadata import EntryPoint

import pytest

from metaopt import registry
from metaopt.errors import UnknownName
from metaopt.registry import Registry, suggest

TABLE = {"Alpha": "collections:OrderedDict", "Beta": "collections:Counter"}


def test_a_plug_in_of_another_package_is_found_beside_our_own(monkeypatch):
    point = EntryPoint("Gamma", "collections:deque", "some.group")
    monkeypatch.setattr(registry, "entry_points", lambda group, name=None: [point] if name in (None, "Gamma") else [])
    names = Registry("thing", "some.group", TABLE)
    assert names.names() == ["Alpha", "Beta", "Gamma"]
    assert names.get("Gamma").__name__ == "deque"
    assert names.get("Alpha").__name__ == "OrderedDict"


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(UnknownName, match=r"unknown thing 'alfa': did you mean Alpha\? \(known are Alpha, Beta\)"):
        Registry("thing", "metaopt.none", TABLE).get("alfa")


def test_far_names_get_all_that_are_known():
    assert suggest("zzz", ["Alpha", "Beta"]) == "known are Alpha, Beta"
