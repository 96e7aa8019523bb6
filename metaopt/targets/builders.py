"""Builders: the two steps from the name of a target to a network, its configuration and its construction."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import nn

from ..core.config import Config, build_configured, default_text
from ..core.errors import InvalidConfig
from ..core.registry import load_path, suggest
from ..core.text import reason_of, shown
from .imported import check_makes_networks


class TargetOption(NamedTuple):
    """An option of a target: its name, its default as a user types it, and what it means."""

    name: str
    default: str = ""
    help: str = ""


class TargetDescription(NamedTuple):
    """A target for people: the package that defines it, one line about it, and its options."""

    origin: str
    summary: str
    options: list[TargetOption]


class Builder(Protocol):
    """Builds the networks of one name."""

    def describe(self) -> TargetDescription:
        """What `metaopt list targets NAME` shows."""

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration that `build` takes: the facts of a task that the network uses, overridden by the options.

        Raises:
            InvalidConfig: an unknown option, or an invalid value.
        """

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with random initial weights.

        Raises:
            InvalidConfig: as for `configure`; configurations are also read from files.
        """


@dataclass(frozen=True)
class ConfiguredBuilder:
    """Builds a class that has a `Config`, such as those of metaopt and of plug-ins."""

    kind: Any
    origin: str

    def describe(self) -> TargetDescription:
        """The first line of the docstring, and the fields of the `Config`."""
        fields = dataclasses.fields(self.kind.Config)
        options = [TargetOption(field.name, default_text(field), field.metadata.get("help", "")) for field in fields]
        return TargetDescription(self.origin, first_line(self.kind), options)

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The facts that are fields of the `Config`, overridden by the options."""
        known = {name: facts[name] for name in self.kind.Config.names() if name in facts}
        config: dict[str, Any] = self.kind.Config.from_mapping({**known, **options}).to_mapping()
        return config

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """An instance of the class."""
        network: nn.Module = build_configured(self.kind, config)
        return network


def signature_options(signature: inspect.Signature) -> list[TargetOption]:
    """The parameters that can be given by name; one without a default has an empty one."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        TargetOption(each.name, "" if each.default is each.empty else shown(each.default).strip("'"))
        for each in signature.parameters.values()
        if each.kind in named
    ]


def first_line(documented: object) -> str:
    """The first line of a docstring."""
    return (documented.__doc__ or "").strip().partition("\n")[0]


def code_builder(path: str) -> Builder:
    """The builder of a class or function at `package.module:name`; imports the module.

    Raises:
        UnknownName: nothing can be imported from the path.
        InvalidConfig: the object at the path is neither a `torch.nn.Module` class nor a function that may return one.
    """
    imported = load_path(path)
    check_makes_networks(path, imported)
    config = getattr(imported, "Config", None)
    if isinstance(config, type) and issubclass(config, Config):
        return ConfiguredBuilder(imported, path.partition(":")[0])
    return _CallableBuilder(path, imported)


class _CallableBuilder:
    """Calls a class or a function with the facts and options that match its parameters."""

    def __init__(self, path: str, make: Callable[..., nn.Module]) -> None:
        self._path = path
        self._make = make
        self._signature = inspect.signature(make)

    def describe(self) -> TargetDescription:
        """The first line of the docstring, and the parameters."""
        options = signature_options(self._signature)
        return TargetDescription(self._path.partition(":")[0], first_line(self._make), options)

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The facts that are named like parameters, overridden by the options."""
        config = {name: facts[name] for name in self._signature.parameters if name in facts} | dict(options)
        self._check(config)
        return config

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The result of the call."""
        self._check(config)
        try:
            return self._make(**config)
        except Exception as error:  # code of the user
            raise InvalidConfig(
                f"{shown(self._path)} with {shown(dict(config))} fails ({reason_of(error)}); correct its options or "
                "its code. --debug shows where"
            ) from error

    def _check(self, config: Mapping[str, Any]) -> None:
        parameters = self._signature.parameters
        takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        for name in config:
            if name not in parameters and not takes_any:
                raise InvalidConfig(
                    f"unknown parameter {shown(name)} for {shown(self._path)}: {suggest(name, parameters)}"
                )
        try:
            self._signature.bind(**config)
        except TypeError as error:
            raise InvalidConfig(
                f"{shown(self._path)} with {shown(dict(config))}: {error}; give it as a target option"
            ) from error
