"""Prepares docstrings of metaopt for the parser: sections without an empty line before them, shared entries."""

import ast
import re
from typing import Any, TypeGuard

import griffe

_SECTION = re.compile(r"^(Args|Returns|Yields|Raises|References):[ ]*(.*)$", re.MULTILINE)
_SHARED = re.compile(r"^    (\w+(?:, \w+)+): (.*(?:\n {8}.*)*)", re.MULTILINE)


class MetaoptDocstrings(griffe.Extension):
    """Converts docstrings to the form that the parser expects, and lists the fields of a configuration in them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite a docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = in_full_form(obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Convert attributes made with `option(default=…, help=…)` into a list in the docstring of their class."""
        options = [member for member in cls.members.values() if _is_option(member)]
        for option in options:
            cls.del_member(option.name)
        if options and cls.docstring is not None:
            cls.docstring.value += "\n\nAttributes:\n" + "\n".join(map(_entry, options))


def in_full_form(docstring: str) -> str:
    """Return the docstring with one paragraph per section and one entry per name."""
    apart = _SECTION.sub(lambda found: f"\n{found[1]}:" + (f"\n    {found[2]}" if found[2] else ""), docstring)
    return _SHARED.sub(lambda found: "\n".join(f"    {name}: {found[2]}" for name in found[1].split(", ")), apart)


def _is_option(member: Any) -> TypeGuard[griffe.Attribute]:
    made = member.value if isinstance(member, griffe.Attribute) else None
    return isinstance(made, griffe.ExprCall) and str(made.function) in ("option", "configuration.option")


def _entry(option: griffe.Attribute) -> str:
    """Return the entry of a parameter: name, type, meaning and default."""
    assert isinstance(option.value, griffe.ExprCall)
    given = {each.name: str(each.value) for each in option.value.arguments if isinstance(each, griffe.ExprKeyword)}
    return f"    {option.name} ({option.annotation}): {ast.literal_eval(given['help'])} Default: `{given['default']}`."
