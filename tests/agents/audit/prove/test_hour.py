"""An hour is proven with its certificate: lines in = rows by flow + joined + duplicates, difference 0."""

import hashlib

import msgspec
import pytest

from agents.audit.hours import batches_of_hour, open_hours
from agents.audit.prove.hour import HourProof, prove_hour
from app.core.audit.certificate import HOUR_MS, SignedWith, encode_certificate, is_signed, sign
from app.core.audit.proof import Verdict
from app.core.formats.object_keys import certificate_key
from tests.worlds.books import START_MS, Books

HOUR = START_MS - START_MS % HOUR_MS
KEY = "a key of this test"


async def books() -> Books:
    """Two settled batches, and the hour is over."""
    made = Books()
    for batch in await made.settled():
        made.complete(batch)
    made.at_ms = HOUR + 2 * HOUR_MS
    return made


async def prove(world: Books, key: str | None = None) -> HourProof:
    return await prove_hour(world.ports, world.prover(), HOUR, key, lambda *_: None)


async def test_a_settled_hour_is_proven_and_balanced():
    world = await books()
    proven = await prove(world)
    assert (proven.verdict, proven.batches, proven.proven, proven.not_proven) == (Verdict.PROVEN, 2, 2, [])
    made = proven.certificate
    assert (made.hour, made.batches, made.lines, made.difference) == ("2026-11-18T11", 2, 18, 0)
    assert made.outcomes == {
        "page_views": 2, "ad_impressions": 2, "ad_clicks": 2, "redirects": 2, "engagements": 2, "rejected": 4, "joined": 2,
        "duplicate": 2,
    }  # fmt: skip
    assert (made.signed_with, made.signature) == (SignedWith.SHA256, sign(made, None))
    unsigned = encode_certificate(msgspec.structs.replace(made, signature=""))
    assert made.signature == hashlib.sha256(unsigned).hexdigest()


async def test_a_key_signs_and_is_not_shown():
    world = await books()
    made = (await prove(world, KEY)).certificate
    assert made.signed_with is SignedWith.HMAC_SHA256
    assert is_signed(made, KEY)
    assert not is_signed(made, "another")
    assert not is_signed(made, None)
    assert not is_signed(msgspec.structs.replace(made, lines=19), KEY)
    assert KEY not in encode_certificate(made).decode()


async def test_the_digest_is_that_of_the_books():
    world = await books()
    clean = (await prove(world)).certificate
    assert (await prove(world)).certificate.digest == clean.digest
    row = next(row for row in world.warehouse.rows("ledger") if row["outcome"] == "duplicate")
    world.change_rows("ledger", lambda rows: [each | {"outcome": "joined"} if each is row else each for each in rows])
    changed = (await prove(world)).certificate
    assert (changed.difference, changed.digest != clean.digest) == (0, True)
    world.change_rows("ledger", lambda rows: [each for each in rows if each["line_set"] != row["line_set"]])
    assert (await prove(world)).certificate.difference > 0


async def test_an_hour_that_is_not_over_or_has_a_late_batch_waits():
    world = await books()
    world.at_ms = HOUR + HOUR_MS - 1
    proven = await prove(world)
    assert (proven.verdict, proven.proven) == (Verdict.WAITING, 2)
    assert "the hour is not over" in proven.waits_for[0]
    world = await books()
    world.at_ms = HOUR + HOUR_MS - 1
    late = await world.batch(arrives=False)
    world.at_ms += HOUR_MS
    proven = await prove(world)
    assert (proven.verdict, proven.proven, proven.waiting) == (Verdict.WAITING, 2, 1)
    assert [proof.batch_id for proof in proven.not_proven] == [late.item.batch_id]
    assert proven.certificate.difference == late.item.line_count


async def test_a_broken_batch_breaks_the_hour():
    world = await books()
    world.change_rows("redirects", lambda rows: rows[1:])
    proven = await prove(world)
    assert (proven.verdict, proven.proven, proven.broken) == (Verdict.BROKEN, 1, 1)


async def test_a_batch_is_of_the_hour_by_any_trace_of_it():
    world = await books()
    first, second = world.registry._items.values()
    await world.store.delete([first.raw_key])
    world.change_rows("ledger", lambda rows: [row for row in rows if row["batch_id"] != second.batch_id])
    assert await batches_of_hour(world.store, world.ledger, HOUR) == sorted([first.batch_id, second.batch_id])
    assert await batches_of_hour(world.store, world.ledger, HOUR - HOUR_MS) == []
    late = await world.batch(arrives=False)
    await world.store.delete([late.item.raw_key])
    hour_ms = world.at_ms - world.at_ms % HOUR_MS
    assert await open_hours(world.registry, hour_ms + HOUR_MS, []) == {hour_ms: [late.item.batch_id]}
    assert await open_hours(world.registry, hour_ms, []) == {}


@pytest.mark.parametrize(
    ("change", "stored", "verdict"),
    [
        (lambda made: made, "same", Verdict.PROVEN),
        (lambda made: msgspec.structs.replace(made, signature="00"), "badly signed", Verdict.BROKEN),
        (lambda made: msgspec.structs.replace(made, lines=17), "other", Verdict.BROKEN),
    ],
)
async def test_the_stored_certificate_is_compared(change, stored, verdict):
    world = await books()
    made = (await prove(world)).certificate
    await world.store.put(certificate_key(HOUR), encode_certificate(change(made)))
    proven = await prove(world)
    assert (proven.stored_certificate, proven.verdict) == (stored, verdict)
    await world.store.put(certificate_key(HOUR), b"{")
    assert (await prove(world)).verdict is Verdict.BROKEN
