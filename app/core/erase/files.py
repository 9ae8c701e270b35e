"""The files of a transaction without some lines, and the record that follows from them (rule R7)."""

import hashlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
import polars as pl
from msgspec import UNSET
from pyroaring import BitMap

from app.core.audit.reconcile import read_lines
from app.core.formats.flow_files import ledger_frame
from app.core.formats.flows import BY_NAME, ERASED, FLOWS, LEDGER
from app.core.formats.step_message import LedgerEntry
from app.core.formats.transaction_record import OutputObject, TransactionRecord
from app.errors import FormatInvalid

Lines = Mapping[str, BitMap]
"""Batch -> some of its lines."""
FLOW_NAMES: Final = frozenset(flow.name for flow in FLOWS)


class NewFile(NamedTuple):
    """A file that takes the place of an output's file."""

    rows: int
    body: bytes


def without_lines(output: str, frame: pl.DataFrame, lines: Lines) -> pl.DataFrame:
    """The rows of an output's file behind an erasure.

    A flow loses the rows of the lines. The ledger's entries give the lines to outcome `erased`, so every line still has one
    outcome. Other outputs hold nothing of an event.

    Raises:
        FormatInvalid: a ledger row's set is no bitmap.

    Guarantees: the order of the other rows stays; doing it again changes nothing.
    """
    if output in FLOW_NAMES:
        places = [(batch_id, line) for batch_id, some in lines.items() for line in some]
        schema = {"batch_id": pl.String(), "line": frame.schema["line"]}
        gone = pl.DataFrame(places, schema=schema, orient="row")
        return frame.join(gone, on=["batch_id", "line"], how="anti", maintain_order="left")
    return _ledger(frame, lines) if output == LEDGER.name else frame


def _ledger(frame: pl.DataFrame, lines: Lines) -> pl.DataFrame:
    outcomes: dict[tuple[str, str], BitMap] = {}
    others, touched = [], set[str]()
    rows = list(frame.select("batch_id", "outcome", "line_set").iter_rows())
    for batch_id, _, line_set in rows:
        members = read_lines(line_set)
        if members is None:
            raise FormatInvalid(f"a ledger row of batch {batch_id} has no bitmap")
        if members & lines.get(batch_id, BitMap()):
            touched.add(batch_id)
    for n, (batch_id, outcome, line_set) in enumerate(rows):
        if batch_id not in touched:
            others.append(n)
            continue
        members, own = read_lines(line_set) or BitMap(), lines[batch_id]
        for name, some in ((outcome, members - own), (ERASED, members & own)):
            if some:
                outcomes[batch_id, name] = outcomes.get((batch_id, name), BitMap()) | some
    if not touched:
        return frame
    made = []
    for (batch_id, outcome), some in sorted(outcomes.items()):
        some.run_optimize()
        made.append(LedgerEntry(batch_id, outcome, len(some), some.serialize()))
    return pl.concat([frame[others], ledger_frame(made, frame["txn_id"][0])])


def amended(record: TransactionRecord, files: Mapping[str, NewFile], erasure_id: str) -> TransactionRecord:
    """The record of a transaction whose files of some outputs are new: everything else follows from it as before."""
    outputs = [_object(out, files[out.output]) if out.output in files else out for out in record.outputs]
    before = [] if record.erasures is UNSET else record.erasures
    return msgspec.structs.replace(record, outputs=outputs, erasures=[*before, erasure_id])


def _object(out: OutputObject, file: NewFile) -> OutputObject:
    if not file.rows:
        return OutputObject(output=out.output, rows=0)
    version = BY_NAME[out.output].version
    return msgspec.structs.replace(
        out, rows=file.rows, bytes=len(file.body), sha256=hashlib.sha256(file.body).hexdigest(),
        version=UNSET if version == 1 else version, received=UNSET,
    )  # fmt: skip
