"""The certificates of the hours whose books an erasure changes: those that were right before are made again."""

from collections.abc import Iterable
from typing import Final

from agents.audit.deep.ports import DeepPorts
from agents.audit.hours import batches_of_hour
from agents.audit.prove.hour import compare_stored
from app.core.audit.certificate import (
    HOUR_MS,
    Certificate,
    HourBooks,
    SignedWith,
    books_of,
    decode_certificate,
    encode_certificate,
    hour_name,
)
from app.core.formats.batch import batch_time_ms
from app.core.formats.object_keys import certificate_key
from app.errors import FormatInvalid, NewerFormat, ObjectMissing, RepairRefused

_SAME: Final = "same"
_NONE: Final = "none"


async def hours_to_certify(ports: DeepPorts, batch_ids: Iterable[str], key: str | None) -> list[int]:
    """The hours of these batches (their beginning) whose certificate says what the books say, or that have none yet.

    Raises:
        RepairRefused: a certificate is signed with a key that is not set here, so it could not be made again.
    """
    hours = []
    for hour_ms in sorted({batch_time_ms(batch_id) // HOUR_MS * HOUR_MS for batch_id in batch_ids}):
        if await _compared(ports, hour_ms, key) in {_NONE, _SAME}:
            hours.append(hour_ms)
    return hours


async def certify_again(ports: DeepPorts, hours: Iterable[int], key: str | None) -> None:
    """Make the certificates of these hours again; the audit may have written one meanwhile. One that is right stays.

    Raises:
        RepairRefused: a certificate is signed with a key that is not set here.
    """
    for hour_ms in hours:
        if await _compared(ports, hour_ms, key) not in {_NONE, _SAME}:
            made = await _certificate(ports, hour_ms, key)
            await ports.store.put(certificate_key(hour_ms), encode_certificate(made))


async def _compared(ports: DeepPorts, hour_ms: int, key: str | None) -> str:
    """What the stored certificate is, in comparison with the books."""
    try:
        stored = decode_certificate(await ports.store.get(certificate_key(hour_ms)))
    except ObjectMissing:
        return _NONE
    except (FormatInvalid, NewerFormat):
        return "unreadable"
    if stored.signed_with is SignedWith.HMAC_SHA256 and key is None:
        raise RepairRefused(f"the certificate of {hour_name(hour_ms)} is signed: set INSTREAM_CERTIFICATE_KEY")
    return await compare_stored(ports.store, hour_ms, await _certificate(ports, hour_ms, key), key)


async def _certificate(ports: DeepPorts, hour_ms: int, key: str | None) -> Certificate:
    books = HourBooks(hour_ms)
    batch_ids = await batches_of_hour(ports.store, ports.ledger, hour_ms)
    entries = await ports.rows.ledger(batch_ids)
    for batch_id in batch_ids:
        if (item := await ports.registry.get(batch_id)) is not None:
            own = [(each.outcome, each.lines, each.line_set) for each in entries.get(batch_id, [])]
            books.add(books_of(item, own))
    return books.certificate(ports.clock.now_ms(), key)
