"""The audit's worker certifies an hour once it is over and every batch of it is complete."""

import pytest
import structlog

from agents.audit.auditor import Auditor
from agents.audit.certifier import WRONG_PAUSE_MS, Certifier
from agents.audit.ports import AuditPorts
from agents.audit.prove.hour import prove_hour
from app.core.audit.certificate import HOUR_MS, Certificate, SignedWith, decode_certificate, is_signed
from app.core.audit.proof import Verdict
from app.errors import AccessDenied, OutcomeUnknown, ServiceUnavailable
from app.testing.memory import MemoryBlockStream
from tests.worlds.books import SETTINGS, START_MS, Books

HOUR = START_MS - START_MS % HOUR_MS
KEY = "a key of this test"


class World(Books):
    """Books with an auditor and a certifier."""

    def __init__(self) -> None:
        super().__init__()

        async def lags(_: frozenset[int]) -> dict[str, int]:
            return {}

        self.audit_ports = AuditPorts(self.store, self.registry, MemoryBlockStream(1, self), self.ledger, lags, self)
        self.certifier = Certifier(self.audit_ports, self.settings)

    async def complete_all(self) -> None:
        """A round of the audit."""
        await Auditor(self.audit_ports, self.settings).round()

    async def stored(self) -> list[Certificate]:
        return [decode_certificate(await self.store.get(info.key)) async for info in self.store.list("certificates/")]


async def over() -> World:
    """An hour with two settled batches; it is over, and the grace too."""
    world = World()
    await world.settled()
    world.at_ms = HOUR + HOUR_MS + 25_000
    return world


async def test_an_hour_is_certified_when_it_is_over_and_complete():
    world = await over()
    assert await world.certifier.round() == []  # its batches are open
    await world.complete_all()
    (made,) = await world.certifier.round()
    assert await world.stored() == [made]
    assert (made.batches, made.lines, made.difference, made.signed_with) == (2, 18, 0, SignedWith.SHA256)
    proven = await prove_hour(world.ports, world.prover(), HOUR, None, lambda *_: None)
    assert (proven.stored_certificate, proven.verdict) == ("same", Verdict.PROVEN)
    assert await world.certifier.round() == []
    assert await Certifier(world.audit_ports, SETTINGS).round() == []
    assert await world.stored() == [made]


async def test_an_hour_waits_for_the_grace_and_for_its_last_batch():
    world = await over()
    await world.complete_all()
    world.at_ms = HOUR + HOUR_MS + 19_000
    assert await world.certifier.round() == []
    world.at_ms = HOUR + HOUR_MS - 1
    await world.batch(arrives=False)
    world.at_ms = HOUR + 3 * HOUR_MS
    assert await world.certifier.round() == []
    assert await world.stored() == []


async def test_an_open_batch_keeps_its_hour_from_a_certificate_though_only_the_registry_knows_it():
    world = await over()
    await world.complete_all()
    world.at_ms = HOUR + HOUR_MS - 1
    lost = await world.batch(arrives=False)
    await world.store.delete([lost.item.raw_key])
    world.at_ms = HOUR + 3 * HOUR_MS
    assert await world.certifier.round() == []
    assert await world.stored() == []


async def test_the_key_signs():
    world = await over()
    await world.complete_all()
    settings = SETTINGS.model_copy(update={"certificate_key": KEY})
    (made,) = await Certifier(world.audit_ports, settings).round()
    assert made.signed_with is SignedWith.HMAC_SHA256
    assert is_signed(made, KEY)


async def test_books_that_do_not_balance_are_no_certificate_and_an_alarm():
    world = await over()
    await world.complete_all()
    kept = world.warehouse.rows("ledger")
    world.change_rows("ledger", lambda rows: rows[1:])
    with structlog.testing.capture_logs() as logged:
        assert await world.certifier.round() == []
        assert await world.certifier.round() == []
    assert [entry["event"] for entry in logged if entry.get("alarm")] == ["the books of an hour do not balance"]
    world.change_rows("ledger", lambda _: kept)
    world.at_ms += WRONG_PAUSE_MS
    assert len(await world.certifier.round()) == 1


async def test_a_batch_that_lost_its_item_keeps_its_hour_from_a_certificate():
    world = await over()
    await world.complete_all()
    del world.registry._items[next(iter(world.registry._items))]
    assert await world.certifier.round() == []
    assert await world.stored() == []


async def test_an_hour_without_a_batch_has_no_certificate_until_one_comes():
    world = World()
    world.at_ms = HOUR + 3 * HOUR_MS
    assert await world.certifier.round() == []
    assert await world.stored() == []
    world.at_ms = START_MS
    await world.batch()
    world.at_ms = HOUR + 3 * HOUR_MS
    assert await world.certifier.round() == []
    await world.through()
    world.pass_s(30)
    await world.through()
    await world.complete_all()
    assert len(await world.certifier.round()) == 1


@pytest.mark.parametrize("error", [ServiceUnavailable, OutcomeUnknown])
async def test_a_service_that_fails_leaves_the_hour_to_the_next_round(error):
    world = await over()
    await world.complete_all()
    moment = "before" if error is ServiceUnavailable else "after"

    async def fail(call: str, subject: str) -> None:
        if call == "put_if_absent":
            raise error("s3")

    setattr(world.store, moment, fail)
    await world.certifier.try_round()
    setattr(world.store, moment, None)
    assert len(await world.stored()) == (moment == "after")
    await world.certifier.try_round()
    assert len(await world.stored()) == 1


async def test_a_missing_permission_ends_the_worker():
    world = await over()

    async def denied(call: str, subject: str) -> None:
        raise AccessDenied("s3", "403")

    world.store.before = denied
    with pytest.raises(AccessDenied):
        await world.certifier.try_round()
