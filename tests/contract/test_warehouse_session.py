"""The same suite over a session of the warehouse (through its stand-in) and of the twin: transactions, the lock, release."""

import asyncio
import base64

import pytest
from pyroaring import BitMap

from app.adapters.warehouse_port import STATEMENT_TIMEOUT_S, LedgerRow
from app.core.delivery.statements import LOADED, QUARANTINED
from app.core.formats.flow_files import encode_output, ledger_frame
from app.core.formats.flows import LEDGER, PAGE_VIEWS
from app.core.formats.step_message import LedgerEntry
from app.errors import OutcomeUnknown, ServiceUnavailable, WarehouseError
from tests.worlds.waiting import LoopTime, turns
from tests.worlds.warehouse import Warehouse
from tests.worlds.warehouse_session import BATCH, Case, memory_case, real_case, row, views


class Transactions:
    async def test_nothing_is_seen_before_commit_and_everything_after_it(self, case: Case) -> None:
        session, other = await case.open(), await case.open()
        await session.lock()
        await session.copy(PAGE_VIEWS, await case.put("m", views(3)))
        await session.insert_log([row(1), row(2), row(1, partition=3)])
        assert await case.count("page_views") == 0
        assert await session.positions(1) == {0: 2, 3: 1}, "its own it sees"
        await session.commit()
        assert (await case.count("page_views"), await case.count("delivery_log")) == (3, 3)
        assert await other.positions(1) == {0: 2, 3: 1}
        for each in (session, other):
            await each.close()

    @pytest.mark.parametrize("end", ["rollback", "close", "kill"])
    async def test_what_was_not_committed_is_gone_and_the_lock_with_it(self, case: Case, end: str) -> None:
        session, other = await case.open(), await case.open()
        await session.lock()
        await session.copy(PAGE_VIEWS, await case.put("m", views(3)))
        await session.insert_log([row(1)])
        if end == "kill":
            case.kill(session)
        else:
            await getattr(session, end)()
        await case.until_given(other)
        assert (await case.count("page_views"), await case.count("delivery_log")) == (0, 0)
        if end == "rollback":
            assert await session.positions(1) == {}
        await session.close()
        await other.close()

    async def test_a_client_whose_connection_died_notices_with_its_next_call(self, case: Case) -> None:
        session = await case.open()
        assert await session.positions(1) == {}
        assert not session.closed
        case.kill(session)
        with pytest.raises(WarehouseError) as caught:
            await session.positions(1)
        assert caught.value.sqlstate is None
        assert session.closed
        with pytest.raises(WarehouseError):
            await session.rollback()
        with pytest.raises(OutcomeUnknown):
            await session.commit()
        await session.close()

    async def test_positions_are_of_one_epoch(self, case: Case) -> None:
        session = await case.open()
        await session.insert_log([row(4), row(9, epoch=2), row(5, status=QUARANTINED), row(3, partition=1)])
        assert await session.positions(1) == {0: 5, 1: 3}
        assert await session.positions(3) == {}
        await session.close()

    @pytest.mark.parametrize(("fault", "committed"), [("drop_before_commit", 0), ("drop_after_commit", 1)])
    async def test_a_commit_that_is_not_answered_is_whole_or_nothing(self, case: Case, fault: str, committed: int) -> None:
        session, other = await case.open(), await case.open()
        await session.lock()
        await session.insert_log([row(1)])
        await session.copy(PAGE_VIEWS, await case.put("m", views(2)))
        case.fail(fault)
        with pytest.raises(OutcomeUnknown):
            await session.commit()
        with pytest.raises(WarehouseError) as caught:
            await session.rollback()
        assert caught.value.sqlstate is None
        await session.close()
        await case.until_given(other)
        assert (await case.count("delivery_log"), await case.count("page_views")) == (committed, 2 * committed)
        await other.close()

    async def test_a_warehouse_that_refuses_connections_is_unavailable(self, case: Case) -> None:
        case.fail("refuse")
        with pytest.raises(ServiceUnavailable):
            await case.open()
        await (await case.open()).close()

    async def test_a_failed_transaction_takes_nothing_more_and_keeps_nothing(self, case: Case) -> None:
        session = await case.open()
        await session.insert_log([row(1)])
        case.fail("disk_full")
        with pytest.raises(WarehouseError, match="Disk Full") as caught:
            await session.copy(PAGE_VIEWS, await case.put("m", views(2)))
        assert caught.value.sqlstate == "53100"
        for call in (session.copied(), session.positions(1), session.insert_log([row(2)]), session.lock()):
            with pytest.raises(WarehouseError) as caught:
                await call
            assert caught.value.sqlstate == "25P02"
        await session.commit()
        assert await case.count("delivery_log") == 0
        await session.insert_log([row(3)])
        await session.commit()
        assert await case.count("delivery_log") == 1
        await session.close()


class Locks:
    async def test_one_after_the_other_and_each_sees_what_was_committed_before(self, case: Case) -> None:
        sessions = [await case.open() for _ in range(3)]
        seen: list[dict[int, int]] = []

        async def take(number: int) -> None:
            await sessions[number].lock()
            seen.append(await sessions[number].positions(1))
            await sessions[number].insert_log([row(number + 1)])
            await sessions[number].commit()

        await sessions[0].lock()
        tasks = []
        for number in (1, 2):
            tasks.append(asyncio.ensure_future(take(number)))
            await case.waiting(number)
        assert seen == []
        await sessions[0].insert_log([row(1)])
        await sessions[0].commit()
        await asyncio.gather(*tasks)
        assert seen == [{0: 1}, {0: 2}]
        for session in sessions:
            await session.close()

    async def test_a_transaction_sees_one_snapshot_which_the_wait_for_a_read_does_not_renew(self, case: Case) -> None:
        loader, reader = await case.open(), await case.open()
        await loader.lock()
        await loader.insert_log([row(1)])
        reading = asyncio.ensure_future(reader.positions(1))
        await case.waiting(1)
        await loader.commit()
        assert await reading == {}
        assert await reader.positions(1) == {}
        await reader.rollback()
        assert await reader.positions(1) == {0: 1}
        for session in (loader, reader):
            await session.close()

    async def test_the_lock_waits_for_readers_and_readers_do_not_for_each_other(self, case: Case) -> None:
        one, two, loader = await case.open(), await case.open(), await case.open()
        assert await one.positions(1) == await two.positions(1) == {}
        locking = asyncio.ensure_future(loader.lock())
        await case.waiting(1)
        await one.rollback()
        assert not locking.done()
        await two.commit()
        await locking
        for session in (one, two, loader):
            await session.close()

    async def test_two_who_have_read_and_both_want_it_alone_are_a_deadlock(self, case: Case) -> None:
        sessions = [await case.open() for _ in range(2)]
        for session in sessions:
            await session.positions(1)
        answers = await asyncio.gather(*(session.lock() for session in sessions), return_exceptions=True)
        (refused,) = (answer for answer in answers if answer is not None)
        assert isinstance(refused, WarehouseError)
        assert refused.sqlstate == "40P01"
        loader, victim = (sessions[answers.index(answer)] for answer in (None, refused))
        await loader.insert_log([row(1)])
        await loader.commit()
        await victim.rollback()
        assert await victim.positions(1) == {0: 1}
        for session in sessions:
            await session.close()

    async def test_a_failed_transaction_holds_up_nobody(self, case: Case) -> None:
        failed, other = await case.open(), await case.open()
        await failed.lock()
        case.fail("disk_full")
        with pytest.raises(WarehouseError):
            await failed.copy(PAGE_VIEWS, await case.put("m", views(2)))
        await case.until_given(other)
        for session in (failed, other):
            await session.close()

    async def test_who_waits_too_long_gives_up_and_may_come_again(self, case: Case, loop_time: LoopTime) -> None:
        zombie, session = await case.open(), await case.open()
        await zombie.lock()
        locking = asyncio.ensure_future(session.lock())
        await case.waiting(1)
        loop_time.pass_s(STATEMENT_TIMEOUT_S - 1)
        await turns()
        assert not locking.done()
        loop_time.pass_s(1)
        with pytest.raises(ServiceUnavailable, match=f"no answer in {STATEMENT_TIMEOUT_S} s"):
            await locking
        await session.rollback()
        await zombie.insert_log([row(1)])
        await zombie.commit()
        await session.lock()
        assert await session.positions(1) == {0: 1}
        for each in (zombie, session):
            await each.close()

    async def test_who_is_gone_while_he_waits_does_not_get_it(self, case: Case) -> None:
        first, gone, third = await case.open(), await case.open(), await case.open()
        await first.lock()
        waiting = asyncio.ensure_future(gone.lock())
        await case.waiting(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await gone.close()
        await first.commit()
        await case.until_given(third)
        for session in (first, third):
            await session.close()


class Release:
    async def test_a_quarantined_transaction_becomes_a_loaded_one_and_no_other_changes(self, case: Case) -> None:
        session = await case.open()
        await session.insert_log([row(1, status=QUARANTINED), row(2, status=QUARANTINED), row(3)])
        await session.commit()
        names = [row(number).txn_id for number in (1, 2, 3)]
        assert [await session.log_status(name) for name in names] == [QUARANTINED, QUARANTINED, LOADED]
        assert await session.log_status("1-0-9-ab") is None
        await session.mark_released(names[0], "again")
        await session.mark_released(names[2], "again")
        assert await session.log_status(names[0]) == LOADED
        await session.rollback()
        assert await session.log_status(names[0]) == QUARANTINED
        await session.mark_released(names[0], "again")
        await session.commit()
        assert [await session.log_status(name) for name in names] == [LOADED, QUARANTINED, LOADED]
        assert await case.count("delivery_log") == 3
        await session.close()

    async def test_what_another_released_meanwhile_is_a_conflict(self, case: Case) -> None:
        first, second = await case.open(), await case.open()
        await first.insert_log([row(1, status=QUARANTINED)])
        await first.commit()
        assert await second.log_status(row(1).txn_id) == QUARANTINED
        await first.mark_released(row(1).txn_id, "first")
        await first.commit()
        with pytest.raises(WarehouseError, match=r"^1023 ") as caught:
            await second.mark_released(row(1).txn_id, "second")
        assert caught.value.sqlstate == "XX000"
        for session in (first, second):
            await session.close()

    async def test_the_ledger_of_batches_is_what_is_committed_and_what_is_its_own(self, case: Case) -> None:
        session = await case.open()
        texts = {}
        for name, batch_id, lines in (("a", BATCH, range(3)), ("b", "other", range(2)), ("c", BATCH, range(5, 9))):
            members = BitMap(lines)
            entry = LedgerEntry(batch_id, "page_views", len(lines), members.serialize())
            texts[name] = base64.b64encode(members.serialize()).decode()
            manifest = await case.put(name, encode_output("ledger", ledger_frame([entry], f"txn-{name}")))
            await session.copy(LEDGER, manifest)
            if name == "b":
                await session.commit()
        mine = [LedgerRow(BATCH, f"txn-{name}", texts[name]) for name in ("a", "c")]
        assert sorted(await session.ledger_of([BATCH, "nobody's"])) == mine
        assert len(await session.ledger_of([BATCH, "other"])) == 3
        await session.close()


class Mending:
    async def test_rows_of_a_transaction_are_deleted_and_copied_anew_in_one_transaction(self, case: Case) -> None:
        session, other = await case.open(), await case.open()
        for name in ("m", "m", "n"):  # the first one twice
            await session.copy(PAGE_VIEWS, await case.put(name, views(2, name)))
        await session.commit()
        assert [await session.count_rows("page_views", name) for name in ("m", "n", "o")] == [4, 2, 0]
        await session.rollback()
        await session.lock()
        await session.delete_rows("page_views", "m")
        await session.copy(PAGE_VIEWS, await case.put("m", views(2, "m")))
        assert await session.count_rows("page_views", "m") == 2
        assert await other.count_rows("page_views", "m") == 4, "nobody else sees it yet"
        await other.rollback()
        await session.commit()
        assert [await other.count_rows("page_views", name) for name in ("m", "n")] == [2, 2]
        await other.rollback()
        await session.delete_rows("page_views", "n")
        await session.rollback()
        assert await case.count("page_views") == 4
        for each in (session, other):
            await each.close()

    async def test_rows_of_the_log_are_found_and_replaced_by_their_number(self, case: Case) -> None:
        session = await case.open()
        await session.insert_log([row(1), row(1), row(2), row(1, partition=3), row(1, epoch=2)])
        await session.commit()
        assert await session.log_rows(1, 0, 1) == [row(1), row(1)]
        assert await session.log_rows(1, 0, 9) == []
        await session.delete_log(1, 0, 1)
        assert await session.log_rows(1, 0, 1) == []
        await session.insert_log([row(1, status=QUARANTINED)])
        assert await session.log_rows(1, 0, 1) == [row(1, status=QUARANTINED)]
        await session.rollback()
        assert len(await session.log_rows(1, 0, 1)) == 2
        await session.delete_log(1, 0, 1)
        await session.insert_log([row(1)])
        await session.commit()
        assert await session.log_rows(1, 0, 1) == [row(1)]
        assert await case.count("delivery_log") == 4
        await session.close()


class InMemory:
    @pytest.fixture
    def case(self) -> Case:
        return memory_case()


class OnTheStandIn:
    @pytest.fixture
    def case(self, warehouse: Warehouse) -> Case:
        return real_case(warehouse)


class TestTransactionsInMemory(InMemory, Transactions): ...


class TestTransactionsOnTheStandIn(OnTheStandIn, Transactions): ...


class TestLocksInMemory(InMemory, Locks): ...


class TestLocksOnTheStandIn(OnTheStandIn, Locks): ...


class TestReleaseInMemory(InMemory, Release): ...


class TestReleaseOnTheStandIn(OnTheStandIn, Release): ...


class TestMendingInMemory(InMemory, Mending): ...


class TestMendingOnTheStandIn(OnTheStandIn, Mending): ...
