"""Damages JSON or msgpack at a random place of its tree, so that the bytes stay well-formed and their meaning does not."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

_MARK: Final = "-- here is something deep --"
NESTS: Final = (b"[", b'{"a":', b"\x91", b"\x81\xa1a", b"(")
"""Beginnings of a tree in a tree."""
_FLAT: Final = 50
"""No sample is as deep."""
DEPTHS: Final = (5, 200, 900, 1500, 30_000)
TEXTS: Final = (
    "", " ", "\x00", "a" * 70_000, "é" * 300, "\ud800", "1_0", "٣", "١٢", "-0", "-1", "NaN", "Infinity", "1e400", "9" * 5000,
    "999999999999999999999999", "../../x", "s3://", "\\N", "\t\n\r", "0x10", "true", "null", "2025-13-45", "https://[::1",
    "https://a:b:c/", "//", "%ff%fe", "utm_source=%", "\u202e", "İ", "ß" * 40, "=" * 9, "AAAA", "255.255.255.256",
    "::ffff:1.2.3.4%eth0",
)  # fmt: skip
NUMBERS: Final = (
    0, -1, 1, 2, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64,
    10**40, 253_402_300_799_999, 253_402_300_800_000, 0.5, -0.0, 1e308, float("inf"), float("nan"), 5e-324,
)  # fmt: skip


class _Form(NamedTuple):
    """A way to write a tree."""

    begins: int
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]
    deep: Callable[[random.Random], tuple[bytes, bytes]]
    """The written mark, and something deep in its place."""


def damage_tree(data: bytes, chance: random.Random) -> bytes | None:
    """`data` with another value at some place of its tree; None if it is neither JSON, NDJSON nor msgpack."""
    if any(nest * _FLAT in data for nest in NESTS):
        return None  # whether it can be read depends on the depth of the caller
    stripped = data.lstrip()
    if stripped[:1] in (b"{", b"["):
        whole = _damaged(data, _JSON, chance)
        return whole if whole is not None else _damaged_line(data, chance)
    for form in _MSGPACK:
        if (changed := _damaged(data, form, chance)) is not None:
            return changed
    return None


def _damaged_line(data: bytes, chance: random.Random) -> bytes | None:
    """NDJSON with one line damaged."""
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    changed = _damaged(lines[at], _JSON, chance) if len(lines) > 1 else None
    return None if changed is None else b"\n".join([*lines[:at], changed, *lines[at + 1 :]])


def _damaged(data: bytes, form: _Form, chance: random.Random) -> bytes | None:
    try:
        tree = form.read(data[form.begins :])
    except (ValueError, RecursionError):
        return None
    if not isinstance(tree, dict | list) or not tree:
        return None
    changed = _change(tree, chance)
    try:
        written = form.write(changed)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    mark, deep = form.deep(chance)
    return data[: form.begins] + written.replace(mark, deep)


def _change(tree: Any, chance: random.Random) -> Any:
    """The tree with one place damaged."""
    places = _places(tree)
    held, key = chance.choice(places)
    match chance.randrange(12):
        case 0:
            del held[key]
        case 1 if isinstance(held, dict):
            held[_new_name(chance)] = held.pop(key)
        case 2 if isinstance(held, dict):
            held[_new_name(chance)] = _odd(chance)
        case 3 if isinstance(held, list):
            held.insert(key, _odd(chance) if chance.random() < 0.5 else copy.deepcopy(held[key]))
        case 4 | 5:  # a value from elsewhere in the tree
            other_held, other = chance.choice(places)
            held[key] = copy.deepcopy(other_held[other])
        case 6 if isinstance(held[key], bytes):
            held[key] = chance.choice((b"", held[key][:-1], held[key] + b"\x00", chance.randbytes(len(held[key]))))
        case 7 if isinstance(held[key], int):
            held[key] += chance.choice((-1, 1, 1000, -(10**12), 10**12))
        case 8 if isinstance(held[key], str):
            text = held[key]
            at = chance.randint(0, len(text))
            held[key] = chance.choice((text[:at], text[:at] + chance.choice(TEXTS) + text[at:], text.upper(), text * 3))
        case _:
            held[key] = _odd(chance)
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in the tree: the map or list, and the key or index in it."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        held = waiting.pop()
        for key, value in held.items() if isinstance(held, dict) else enumerate(held):
            found.append((held, key))
            if isinstance(value, dict | list) and value:
                waiting.append(value)
    return found


def _new_name(chance: random.Random) -> Any:
    return chance.choice(("", "x", "version", "é", "a" * 300, "\x00", "properties", "received_at", "S", "N"))


def _odd(chance: random.Random) -> Any:
    """A value that hardly any place expects."""
    made: tuple[Callable[[], Any], ...] = (
        lambda: None, lambda: chance.random() < 0.5, lambda: chance.choice(NUMBERS), lambda: chance.choice(NUMBERS),
        lambda: chance.choice(TEXTS), lambda: chance.choice(TEXTS), lambda: [], lambda: {}, lambda: [_odd(chance)],
        lambda: {_new_name(chance): _odd(chance)}, lambda: _MARK,
    )  # fmt: skip
    return chance.choice(made)()


def _json_deep(chance: random.Random) -> tuple[bytes, bytes]:
    depth = chance.choice(DEPTHS)
    begins, ends = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return json.dumps(_MARK).encode(), begins * depth + b"1" + ends * depth


def _msgpack_deep(chance: random.Random) -> tuple[bytes, bytes]:
    return msgspec.msgpack.encode(_MARK), chance.choice(NESTS[2:4]) * chance.choice(DEPTHS) + b"\xc0"


_JSON: Final = _Form(
    0, json.loads, lambda tree: json.dumps(tree, ensure_ascii=False).encode(errors="surrogatepass"), _json_deep
)  # fmt: skip
_MSGPACK: Final = tuple(_Form(begins, msgspec.msgpack.decode, msgspec.msgpack.encode, _msgpack_deep) for begins in (0, 1, 4))
"""Alone, behind the byte of a control message, and behind the four bytes of a step."""
