"""Addresses of servers and databases, as messages may show them."""

import re

_USER = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)[^\s'\"<>]*@")
_SECRET = re.compile(r"(?P<name>(?:password|passwd|pwd|token|secret)=)[^&\s'\"]+", re.IGNORECASE)


def without_password(text: str) -> str:
    """A text, such as an address or an error message, without user names and passwords of addresses.

    from metaopt.core.addresses import without_password

    print(without_password("no answer from https://ada:battery@host/x"))  # no answer from https://host/x
    """
    return _SECRET.sub(r"\g<name>***", _USER.sub(r"\g<scheme>", text))
