"""The loopback ports of a stack.

A port that the environment sets is used or refused. Another port has its usual number, or a free one if that is taken. A
stack claims each of its ports while it lives: it holds the UDP socket of the same number. So two stacks that start at once
never choose the same port, and a restarted service finds its port free.
"""

import random
import socket
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from app.errors import LocalStackError

HOST: Final = "127.0.0.1"
FREE_RANGE: Final = range(20_000, 32_000)
"""Below the ports of outgoing connections on Linux and macOS, which could otherwise take a port between two starts."""
TRIES: Final = 500


class Service(NamedTuple):
    """Something that listens."""

    name: str
    variable: str | None = None
    """The environment variable that sets its port; None if only the stack itself uses the port."""
    usual: int | None = None
    """The usual port; None means any free port."""


class Claim(NamedTuple):
    """A port and the socket that holds it; close the socket to give the port up."""

    port: int
    holder: socket.socket
    moved: bool
    """Whether the usual port was taken; then the stack shows this one to the operator."""


_OWN: Final[list[Claim]] = []


def claim(port: int) -> socket.socket | None:
    """The socket that claims `port`, or None if the port is taken."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        holder.bind((HOST, port))
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            probe.listen(1)
    except OSError:
        holder.close()
        return None
    return holder


def claim_free() -> Claim:
    """Any free port.

    Raises:
        LocalStackError: hundreds of tries found none.
    """
    for port in random.sample(FREE_RANGE, TRIES):
        holder = claim(port)
        if holder is not None:
            return Claim(port, holder, moved=False)
    raise LocalStackError(f"no free port between {FREE_RANGE.start} and {FREE_RANGE.stop}")


def own_port() -> int:
    """Any free port; this process claims it until its own end, so no other stack takes it before a service listens there.

    Raises:
        LocalStackError: as `claim_free`.
    """
    held = claim_free()
    _OWN.append(held)
    return held.port


def claim_ports(services: Iterable[Service], set_ports: Mapping[str, int]) -> dict[str, Claim]:
    """A claimed port for every service, by its name.

    Args:
        services: the services that will listen.
        set_ports: service -> the port that its variable sets; 0 asks for any free one.

    Raises:
        LocalStackError: a port that is set is taken; nothing stays claimed.
    """
    claims: dict[str, Claim] = {}
    try:
        for service in services:
            claims[service.name] = _claim_for(service, set_ports.get(service.name))
    except LocalStackError:
        release(claims.values())
        raise
    return claims


def release(claims: Iterable[Claim]) -> None:
    """Give the ports up."""
    for held in claims:
        held.holder.close()


def _claim_for(service: Service, port: int | None) -> Claim:
    if port:
        holder = claim(port)
        if holder is None:
            raise LocalStackError(
                f"port {port} ({service.variable}, {service.name}) is taken: free it, set another, or unset the variable"
            )
        return Claim(port, holder, moved=False)
    if port == 0 or service.usual is None:
        return claim_free()
    holder = claim(service.usual)
    return Claim(service.usual, holder, moved=False) if holder else claim_free()._replace(moved=True)
