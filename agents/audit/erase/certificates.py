"""The certificates of the hours whose books an erasure changes: those that were right before are made again."""

from collections.abc import Iterable

from agents.audit.deep.ports import DeepPorts
from agents.audit.prove.hour import batches_of_hour, compare_stored
from app.core.audit.certificate import HOUR_MS, Certificate, HourBooks, books_of, encode_certificate, hour_name
from app.core.formats.batch import batch_time_ms
from app.core.formats.object_keys import certificate_key
from app.errors import RepairRefused

SAME = "same"


async def right_certificates(ports: DeepPorts, batch_ids: Iterable[str], key: str | None) -> list[int]:
    """The hours of these batches (their beginning) that have a certificate, and it says what the books say.

    Raises:
        RepairRefused: a certificate is signed with a key that is not set here, so it could not be made again.
    """
    hours = []
    for hour_ms in sorted({batch_time_ms(batch_id) // HOUR_MS * HOUR_MS for batch_id in batch_ids}):
        if await ports.store.head(certificate_key(hour_ms)) is None:
            continue
        found = await compare_stored(ports.store, hour_ms, await _certificate(ports, hour_ms, key), key)
        if found == SAME:
            hours.append(hour_ms)
        elif "key" in found:
            raise RepairRefused(f"the certificate of {hour_name(hour_ms)} is signed: set INSTREAM_CERTIFICATE_KEY")
    return hours


async def certify_again(ports: DeepPorts, hours: Iterable[int], key: str | None) -> None:
    """Make the certificates of these hours again."""
    for hour_ms in hours:
        made = await _certificate(ports, hour_ms, key)
        await ports.store.put(certificate_key(hour_ms), encode_certificate(made))


async def _certificate(ports: DeepPorts, hour_ms: int, key: str | None) -> Certificate:
    books = HourBooks(hour_ms)
    batch_ids = await batches_of_hour(ports.store, ports.registry, ports.ledger, hour_ms)
    entries = await ports.rows.ledger(batch_ids)
    for batch_id in batch_ids:
        if (item := await ports.registry.get(batch_id)) is not None:
            own = [(each.outcome, each.lines, each.line_set) for each in entries.get(batch_id, [])]
            books.add(books_of(item, own))
    return books.certificate(ports.clock.now_ms(), key)
