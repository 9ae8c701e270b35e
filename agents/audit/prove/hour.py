"""The batches of an hour, their proofs, and the certificate that follows from them."""

from collections.abc import Callable
from typing import Final

import msgspec

from agents.audit.deep.ports import DeepPorts
from agents.audit.hours import batches_of_hour, open_hours
from agents.audit.prove.prover import Prover
from app.adapters.ports import ObjectStore
from app.core.audit.certificate import (
    HOUR_MS,
    Certificate,
    HourBooks,
    SignedWith,
    decode_certificate,
    hour_name,
    is_signed,
    same_books,
)
from app.core.audit.proof import Proof, Verdict, verdict_of
from app.core.formats.object_keys import certificate_key
from app.errors import FormatInvalid, NewerFormat, ObjectMissing

CHUNK: Final = 10
"""Batches proven together: all their rows are in memory, at some 2 KB each. Neighbours in time share transactions."""
NAMED: Final = 100
"""The answer has the proofs of at most so many batches that are not proven."""
Show = Callable[[int, int, str], None]


class HourProof(msgspec.Struct, kw_only=True):
    """The proof of an hour."""

    hour: str
    """UTC, `2026-11-28T03`."""
    verdict: Verdict
    batches: int = 0
    proven: int = 0
    waiting: int = 0
    broken: int = 0
    waits_for: list[str] = []
    """What the hour as a whole waits for, or what is wrong with its certificate."""
    not_proven: list[Proof] = []
    certificate: Certificate
    stored_certificate: str = "none"
    """The certificate that the audit wrote, in comparison: none, same, other, unreadable, badly signed, or signed with a key
    that is not set here."""


async def prove_hour(ports: DeepPorts, prover: Prover, hour_ms: int, key: str | None, show: Show) -> HourProof:
    """Prove every batch of an hour, and compare the certificate with the stored one.

    Args:
        ports: what is read.
        prover: proves the batches.
        hour_ms: the beginning of the hour.
        key: signs the certificate; None: it is signed with a plain digest.
        show: gets the progress.

    Raises:
        ServiceUnavailable: a service does not answer.
    """
    unreadable: list[str] = []
    still_open = (await open_hours(ports.registry, hour_ms + HOUR_MS, unreadable)).get(hour_ms, [])
    batch_ids = sorted({*await batches_of_hour(ports.store, ports.ledger, hour_ms), *still_open})
    books, counts = HourBooks(hour_ms), dict.fromkeys(Verdict, 0)
    not_proven: list[Proof] = []
    for start in range(0, len(batch_ids), CHUNK):
        for each in await prover.look(batch_ids[start : start + CHUNK]):
            if each.is_no_batch:
                continue
            counts[each.proof.verdict] += 1
            if each.books is not None:
                books.add(each.books)
            if each.proof.verdict is not Verdict.PROVEN and len(not_proven) < NAMED:
                not_proven.append(each.proof)
        show(min(start + CHUNK, len(batch_ids)), len(batch_ids), "")
    now_ms = ports.clock.now_ms()
    certificate = books.certificate(now_ms, key)
    waits_for = [f"the hour is not over: more batches may come until {hour_name(hour_ms + HOUR_MS)}:00"]
    waits_for = waits_for if now_ms < hour_ms + HOUR_MS else []
    stored = await _stored(ports.store, hour_ms, certificate, key)
    verdicts = [verdict for verdict, count in counts.items() if count]
    if stored in _WRONG:
        verdicts.append(Verdict.BROKEN)
        waits_for.append(f"the stored certificate: {_WRONG[stored]}")
    if unreadable:
        verdicts.append(Verdict.BROKEN)
        waits_for += unreadable
    if waits_for:
        verdicts.append(Verdict.WAITING)
    return HourProof(
        hour=hour_name(hour_ms), verdict=verdict_of(verdicts), batches=sum(counts.values()), proven=counts[Verdict.PROVEN],
        waiting=counts[Verdict.WAITING], broken=counts[Verdict.BROKEN], waits_for=waits_for, not_proven=not_proven,
        certificate=certificate, stored_certificate=stored,
    )  # fmt: skip


_WRONG: Final = {
    "other": "it says something else about the hour than registry and ledger say now",
    "unreadable": "it cannot be read",
    "badly signed": "its signature is not that of its content",
}


async def _stored(store: ObjectStore, hour_ms: int, ours: Certificate, key: str | None) -> str:
    """What the stored certificate is, in comparison with ours."""
    try:
        stored = decode_certificate(await store.get(certificate_key(hour_ms)))
    except ObjectMissing:
        return "none"
    except (FormatInvalid, NewerFormat):
        return "unreadable"
    if not same_books(stored, ours):
        return "other"
    if is_signed(stored, key):
        return "same"
    needs_key = stored.signed_with is SignedWith.HMAC_SHA256 and key is None
    return "signed with a key that is not set here" if needs_key else "badly signed"
