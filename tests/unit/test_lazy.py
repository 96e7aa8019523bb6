"""Packages that import their names at first use: no module may have the name of one of them.

The import of a module sets an attribute of its name in its package, which would replace the public name.
"""

import importlib
import pkgutil

import metaopt


def test_no_module_replaces_a_public_name():
    names = [info.name for info in pkgutil.walk_packages(metaopt.__path__, "metaopt.") if info.ispkg]
    packages = map(importlib.import_module, ["metaopt", *names])
    lazy = [package for package in packages if "__getattr__" in vars(package)]
    assert len(lazy) > 5
    for package in lazy:
        modules = {info.name for info in pkgutil.iter_modules(package.__path__)}
        assert not modules & set(package.__all__), package.__name__
