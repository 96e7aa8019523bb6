"""Networks of the user's own, by the path to their code: `package.module:build`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..configuration import Config
from ..errors import InvalidConfig
from ..registry import load_path, suggest
from .builders import Builder, ConfiguredBuilder


def code_builder(path: str) -> Builder:
    """The builder of whatever stands at a path; the code there is imported.

    Raises:
        UnknownName: nothing can be imported from there.
        InvalidConfig: what stands there cannot be called.
    """
    made = load_path(path)
    config = getattr(made, "Config", None)
    if isinstance(config, type) and issubclass(config, Config):
        return ConfiguredBuilder(made)
    return _CallableBuilder(path, made)


class _CallableBuilder:
    """Calls a class or a function; its parameters say which facts it wants and which options it takes."""

    def __init__(self, path: str, make: Callable[..., nn.Module]) -> None:
        self._path = path
        self._make = make
        try:
            self._signature = inspect.signature(make)
        except (TypeError, ValueError) as error:
            raise InvalidConfig(
                f"{path!r} is {type(make).__name__}; expected a torch.nn.Module class or a function with parameters"
            ) from error

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The facts that are named like parameters, then the options."""
        config = {name: facts[name] for name in self._signature.parameters if name in facts} | dict(options)
        self._check(config)
        return config

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """What the call returns."""
        self._check(config)
        return self._make(**config)

    def _check(self, config: Mapping[str, Any]) -> None:
        parameters = self._signature.parameters
        takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        for name in config:
            if name not in parameters and not takes_any:
                raise InvalidConfig(f"unknown parameter {name!r} for {self._path!r}: {suggest(name, parameters)}")
        try:
            self._signature.bind(**config)
        except TypeError as error:
            raise InvalidConfig(f"{self._path!r} with {dict(config)!r}: {error}; give it as a target option") from error
