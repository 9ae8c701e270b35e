"""Whether a quarantined transaction may still be loaded: no line twice in the ledger (rule D2)."""

import base64
import binascii
from collections.abc import Iterable

from pyroaring import BitMap

from app.errors import FormatInvalid


def lines_of(entries: Iterable[tuple[str, str]]) -> dict[str, BitMap]:
    """Batch -> every line that the entries (batch_id, line_set in base64) answer for.

    Raises:
        FormatInvalid: a line_set is no bitmap.
    """
    lines: dict[str, BitMap] = {}
    for batch_id, text in entries:
        try:
            members = BitMap.deserialize(base64.b64decode(text, validate=True))
        except (ValueError, binascii.Error) as exc:
            raise FormatInvalid(f"line_set of batch {batch_id} is no bitmap: {exc}") from exc
        lines[batch_id] = lines.get(batch_id, BitMap()) | members
    return lines


def already_there(own: dict[str, BitMap], ledger: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Batch -> how many of a transaction's own lines the warehouse's ledger already has; empty where it may be loaded."""
    present = lines_of(ledger)
    common = {batch_id: len(lines & present.get(batch_id, BitMap())) for batch_id, lines in own.items()}
    return {batch_id: count for batch_id, count in common.items() if count}
