"""Whether a quarantined transaction may still be loaded: no line twice in the ledger (rule D2)."""

import base64
from collections.abc import Iterable

from pyroaring import BitMap

from app.core.formats.decoding import read_bitmap, reading


def lines_of(entries: Iterable[tuple[str, str]]) -> dict[str, BitMap]:
    """Batch -> every line that the entries (batch_id, line_set in base64) answer for.

    Raises:
        FormatInvalid: a line_set is no bitmap.
    """
    lines: dict[str, BitMap] = {}
    for batch_id, text in entries:
        with reading(f"line_set of batch {batch_id}"):
            members = read_bitmap(base64.b64decode(text, validate=True), "bitmap")
        lines[batch_id] = lines.get(batch_id, BitMap()) | members
    return lines


def already_there(own: dict[str, BitMap], ledger: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Batch -> how many of a transaction's own lines the warehouse's ledger already has; empty where it may be loaded."""
    present = lines_of(ledger)
    common = {batch_id: len(lines & present.get(batch_id, BitMap())) for batch_id, lines in own.items()}
    return {batch_id: count for batch_id, count in common.items() if count}
