"""Bodies as clients send them: events that keep every rule, events that just break one, and bytes that were damaged."""

import json
from random import Random

from app.collector.requests import RequestBody
from app.core.events.fields import EVENT_TYPES, FIELDS, OF_SERVERS, TYPED_FIELDS
from app.core.formats.flows import ColumnKind

NOW_MS = 1_750_000_000_000
TEXTS = (
    "a", "ü", "日本語", "😀", 'a"b', "back\\slash", "line\nfeed", "tab\t", "/x/y", "", " ", "x" * 63, "x" * 64, "x" * 65,
    "x" * 128, "x" * 129, "é" * 64, "é" * 65, "\u2028", "\x7f", "\0", "\x01", "a" * 4096, "a" * 4097, "k_1-Z", "EUR",
    "EU", "1.2.3.4", "203.0.113.9", "01.2.3.4", "256.1.1.1", "2001:db8:1:2:3:4:5:6", "2001:db8:0:0:3:4:5:6",
    "2001:db8::1", "2001:DB8:1:2:3:4:5:6", "1.2.3.4, 5.6.7.8", "null", "true", "page_view",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 5, 99, 100, 101, 2**31, 10**18 - 1, 10**18, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30, NOW_MS,
    NOW_MS // 1000, NOW_MS + 86_400_000, NOW_MS + 86_400_001, 0.5, 1.0, -0.0, 0.0, 1e-4, 1e-5, 0.12345, 123456.789, 1e15,
    1e16, 1e300, 0.1 + 0.2, -1.5, 100.5, 12.25,
)  # fmt: skip
_BYTES = b'"\\{}[],:0123456789eE.+-tfnu \n\r\t\x00\xff\xc3aZ'
_PIECES = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"\\u00e9", b"\\u0022", b"\\u000a", b"\\ud83d\\ude00",
    b"\\ud800", b"\\udc00", b"\\u0000", b"\\/", b"--", b"-", b"0", b".0", b"1e5", b" ", b"\n", b"\r", b"\xff",
    b"\xc3", b'"a":1,', b"true", b'"webdriver":true,', b'"event_id":"x",', b'"ip":"1.2.3.4",',
    b'"properties":{"k0":1},', b'"k0":2,',
)  # fmt: skip
_SEPARATORS = ((",", ":"), (", ", ": "), (" ,\t", " :\r"))


def value(chance: Random, depth: int = 0) -> object:
    """Any JSON value."""
    kind = chance.random()
    if kind < 0.35:
        return chance.choice(TEXTS)
    if kind < 0.65:
        return chance.choice(NUMBERS)
    if kind < 0.75 or depth > 4:
        return chance.choice((True, False, None))
    if kind < 0.88:
        keys = [chance.choice((*TEXTS, *(f"k{n}" for n in range(30)))) for _ in range(chance.randrange(5))]
        return {key: value(chance, depth + 1) for key in keys}
    return [value(chance, depth + 1) for _ in range(chance.randrange(4))]


def plain_value(name: str, chance: Random) -> object:  # noqa: PLR0911
    """A value that keeps the rule of a field."""
    if name in ("event_id", "page_view_id"):
        return f"{name[0]}-{chance.getrandbits(60):x}"
    if name == "occurred_at":
        return NOW_MS - chance.randrange(10**8)
    if name == "currency":
        return chance.choice(("EUR", "usd"))
    if name == "properties":
        return {f"k{n}": value(chance, 1) for n in range(chance.randrange(4))}
    if name == "ip":
        return chance.choice(("1.2.3.4", "203.0.113.9", "2001:db8:1:2:3:4:5:6", "::1"))
    if name == "user_agent":
        return chance.choice(("Mozilla/5.0 (X11)", "ü", " x", ""))
    kind = FIELDS[name].kind
    if kind is ColumnKind.BOOLEAN:
        return chance.random() < 0.5
    if kind is ColumnKind.INTEGER:
        return chance.randrange(1, 4)
    return chance.choice(("x", "Titel ü", 'a/b"c', "", "https://www.example.com/a?b=c"))


def event_text(chance: Random) -> bytes:
    """The text of an event; a third of them has something unusual."""
    event_type = chance.choice(EVENT_TYPES)
    fields: list[tuple[str, object]] = [("event_type", event_type)]
    for field in TYPED_FIELDS[event_type]:
        if field.is_required or chance.random() < 0.5:
            fields.append((field.name, plain_value(field.name, chance)))
    if chance.random() < 0.5:
        fields.append(("properties", plain_value("properties", chance)))
    if chance.random() < 0.2:
        fields.append((chance.choice(("utm_source", "bär", *TEXTS)), value(chance, 1)))
    if chance.random() < 0.2:
        fields += [(name, plain_value(name, chance)) for name in OF_SERVERS]
    if chance.random() < 0.15:
        fields.append((chance.choice((*FIELDS, *OF_SERVERS)), value(chance)))
    if chance.random() < 0.08:
        fields.pop(chance.randrange(len(fields)))
    if chance.random() < 0.5:
        chance.shuffle(fields)
    is_ascii, separators = chance.random() < 0.3, chance.choice(_SEPARATORS)
    entries = (
        f"{json.dumps(name, ensure_ascii=is_ascii)}{separators[1]}"
        f"{json.dumps(value, ensure_ascii=is_ascii, separators=separators)}"
        for name, value in fields
    )
    return f"{{{separators[0].join(entries)}}}".encode()


def damaged(text: bytes, chance: Random) -> bytes:
    """A text with one to four changes."""
    changed = bytearray(text)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at, kind = chance.randrange(len(changed) + 1), chance.random()
        if kind < 0.3:
            changed[at : at + 1] = bytes([chance.choice(_BYTES)])
        elif kind < 0.65:
            changed[at:at] = chance.choice(_PIECES)
        else:
            del changed[at : at + chance.randrange(1, 8)]
    return bytes(changed)


def request_body(chance: Random) -> RequestBody:
    """A whole request."""
    lines = [event_text(chance) for _ in range(chance.choice((1, 1, 2, 5)))]
    if chance.random() < 0.5:
        lines = [damaged(line, chance) if chance.random() < 0.6 else line for line in lines]
    content_type = chance.choice((*3 * ("application/x-ndjson",), "application/json", "text/plain"))
    if content_type != "application/x-ndjson" and chance.random() < 0.7:
        body = b"[" + chance.choice((b",", b" ,\n", b", ")).join(lines) + b"]"
    else:
        body = chance.choice((b"\n", b"\r\n", b"\n\n")).join(lines) + chance.choice((b"", b"\n", b"\r\n"))
    if chance.random() < 0.1:
        body = damaged(body, chance)
    if chance.random() < 0.05:
        body = b"\xef\xbb\xbf" + body
    ip, agent = chance.choice(("1.2.3.4", None)), chance.choice(('UA "x" ü', None, "Mozilla"))
    return RequestBody(body, content_type, chance.choice(("browser", "server")), NOW_MS, ip, agent)
