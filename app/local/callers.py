"""Tells a program of this machine from a web page: a browser lets every page send requests to this machine's ports.

A page's request shows the page (`Origin`, `Sec-Fetch-Site`). A page that lets its own name lead to this machine shows that
name as `Host`.
"""

import ipaddress
from typing import Final, Protocol

_OF_PAGES: Final = ("Origin", "Sec-Fetch-Site")


class Headers(Protocol):
    """The headers of a request; names have no case."""

    def get(self, name: str, default: str) -> str:
        """The value of a header."""
        ...


def refusal(headers: Headers, *, any_host: bool = False) -> str | None:
    """Why a request must not be served, or None.

    Args:
        headers: the request's.
        any_host: take every `Host`, for a service that other machines call by its name.
    """
    for name in _OF_PAGES:
        if headers.get(name, ""):
            return f"a web page sent this request ({name}); only programs may"
    host = headers.get("Host", "")
    if not any_host and not _is_this_machine(host):
        return f"the request is for the host {host[:64]!r}; call 127.0.0.1"
    return None


def _is_this_machine(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
