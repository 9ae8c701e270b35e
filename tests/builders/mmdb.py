"""Writes small files in MaxMind's format, to read them for real.

Source: maxmind.github.io/MaxMind-DB (version 2.0): a binary search tree over the bits of an address, 16 zero bytes, the data
section, then a marker and the metadata. IPv4 lies in the IPv6 tree below 96 zero bits.
"""

import ipaddress
import struct
from collections.abc import Mapping
from typing import Any

MARKER = b"\xab\xcd\xefMaxMind.com"
SEPARATOR_BYTES = 16
UINT16, UINT32, UINT64 = 5, 6, 9


def encode(value: Any) -> bytes:
    """A value of the data section: map, array, string, or (type, unsigned integer)."""
    if isinstance(value, str):
        raw = value.encode()
        return head(2, len(raw)) + raw
    if isinstance(value, dict):
        return head(7, len(value)) + b"".join(encode(k) + encode(v) for k, v in value.items())
    if isinstance(value, list):
        return head(11, len(value)) + b"".join(encode(item) for item in value)
    kind, number = value
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return head(kind, len(raw)) + raw


def head(kind: int, size: int) -> bytes:
    extended = bytes([kind - 7]) if kind > 7 else b""
    first = 0 if kind > 7 else kind << 5
    if size < 29:
        return bytes([first | size]) + extended
    if size < 285:
        return bytes([first | 29]) + extended + bytes([size - 29])
    return bytes([first | 30]) + extended + struct.pack(">H", size - 285)


def write_mmdb(networks: Mapping[str, Any], kind: str = "Test-City") -> bytes:
    """A database of disjoint networks (CIDR -> entry)."""
    data, places = b"", []
    for cidr, entry in networks.items():
        places.append((bits_of(cidr), len(data)))
        data += encode(entry)
    nodes: list[list[int | str | None]] = [[None, None]]
    for bits, offset in places:
        at = 0
        for bit in bits[:-1]:
            if nodes[at][bit] is None:
                nodes.append([None, None])
                nodes[at][bit] = len(nodes) - 1
            at = int(nodes[at][bit] or 0)
        nodes[at][bits[-1]] = f"data {offset}"
    count = len(nodes)

    def record(target: int | str | None) -> bytes:
        if target is None:
            number = count
        elif isinstance(target, int):
            number = target
        else:
            number = count + SEPARATOR_BYTES + int(target.removeprefix("data "))
        return number.to_bytes(4, "big")

    tree = b"".join(record(left) + record(right) for left, right in nodes)
    meta = {
        "node_count": (UINT32, count), "record_size": (UINT16, 32), "ip_version": (UINT16, 6), "database_type": kind,
        "languages": ["en"], "binary_format_major_version": (UINT16, 2), "binary_format_minor_version": (UINT16, 0),
        "build_epoch": (UINT64, 1_750_000_000),
        "description": {"en": "written by a test"},
    }  # fmt: skip
    return tree + bytes(SEPARATOR_BYTES) + data + MARKER + encode(meta)


def bits_of(cidr: str) -> list[int]:
    network = ipaddress.ip_network(cidr)
    bits = f"{int(network.network_address):0{network.max_prefixlen}b}"[: network.prefixlen]
    return [int(bit) for bit in ("0" * 96 if network.version == 4 else "") + bits]
