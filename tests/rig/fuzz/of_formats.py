"""Targets: every stored or sent format, each as its readers read it."""

from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from app.core.audit.reconcile import read_lines
from app.core.formats.arrow_stream import BufferKind, Buffers, read_stream, write_stream
from app.core.formats.object_keys import repair_key, repair_place
from app.core.formats.step_message import StepLog
from app.core.join.join_order import Due
from app.core.join.window_state import load_window, pending_key
from app.core.repair.replacements import Replacements
from app.core.rules import JoinRules
from app.core.sink.chain import ChainId, decode_loadable
from app.core.state.encoding import digest_of
from app.core.state.tables import MemoryState
from app.errors import ChainBroken, FormatInvalid, NewerFormat, StepMessageInvalid
from tables.dimensions import read_id
from tests.corpus.formats import FORMATS, Format
from tests.corpus.samples import read_samples
from tests.rig.fuzz.target import Target

SAMPLES: dict[str, list[bytes]] = {}
for _sample in read_samples():
    SAMPLES.setdefault(_sample.format, []).append(_sample.data)

_RULES = JoinRules(90_000, 30_000, 10_000)
_FRAME = bytes(8)
_TABLES = (
    ("pending", pending_key(0), SAMPLES["pending"][0]),
    ("seconds", _FRAME + b"d", SAMPLES["seconds"][0]),
    ("seconds", _FRAME + b"m", SAMPLES["seconds_mask"][0]),
    ("views", digest_of("v-e1"), SAMPLES["view"][0]),
)
"""One value of every kind that the index of the window is made of; the view is that of the first event."""


def _read_any(made: Format, data: bytes) -> Any:
    """The value in bytes; if they do not name their version, each version is tried."""
    if not made.names_no_version:
        return made.read(data)
    for version in range(1, made.version):
        with suppress(*made.errors):
            return made.read(data, version)
    return made.read(data, made.version)


def _load_window(data: bytes) -> None:
    """The index of the window where the value of one table is damaged; the first byte says which table."""
    state = MemoryState()
    for table, key, value in _TABLES:
        state.tables[table][key] = value
    table, key, _ = _TABLES[(data[0] if data else 0) % len(_TABLES)]
    state.tables[table][key] = data[1:]
    load_window(state, _RULES, Due(0, 0, ""))


def _replacements(data: bytes) -> None:
    Replacements({117: data}, StepLog("rows", 5, 3))


def _of_text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


_BYTES = partial(np.frombuffer, dtype=np.uint8)
_STREAM = write_stream(2, [
    Buffers("number", BufferKind.INTEGER, 0, None, None, np.array([7, 8])),
    Buffers("text", BufferKind.TEXT, 1, _BYTES(b"\x01"), np.array([0, 2, 2], np.int32), _BYTES(b"ab")),
    Buffers("truth", BufferKind.BOOLEAN, 0, None, None, _BYTES(b"\x02")),
])  # fmt: skip

_LINE_SET = b"OjAAAAEAAAAAAAIAEAAAAAAAAQACAA=="

TARGETS = (
    *(Target(name, SAMPLES[name], partial(_read_any, made), made.errors) for name, made in FORMATS.items()),
    Target("dimension_id", (b"a1", "é".encode()), read_id, (FormatInvalid,)),
    Target("arrow_stream", (_STREAM,), read_stream, (FormatInvalid,)),
    Target("line_set", (_LINE_SET,), lambda data: read_lines(_of_text(data))),
    Target("repair_key", (repair_key(3, 5, 117).encode(),), lambda data: repair_place(_of_text(data))),
    Target("repair", SAMPLES["step_message"], _replacements, (StepMessageInvalid, NewerFormat)),
    Target(
        "loadable_record", SAMPLES["transaction_record"], partial(decode_loadable, chain_id=ChainId(3, 5), number=42),
        (ChainBroken, NewerFormat),
    ),
    Target(
        "window", [bytes([n]) + value for n, (_, _, value) in enumerate(_TABLES)], _load_window, (FormatInvalid, NewerFormat)
    ),
)  # fmt: skip
