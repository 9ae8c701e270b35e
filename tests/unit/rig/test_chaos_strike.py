"""A fault of chaos that is disturbed is tried again, and noted as one that met nobody."""

import asyncio
from types import SimpleNamespace

import pytest

from app.errors import ServiceUnavailable
from app.local.services.aws_faults import Rates
from tests.rig.chaos import strike
from tests.rig.chaos.plan import Fault, Kind
from tests.rig.chaos.report import Journal
from tests.rig.chaos.strike import Damages, Striker


@pytest.mark.parametrize("disturbance", [ServiceUnavailable("S3"), TimeoutError(), asyncio.CancelledError()], ids=repr)
async def test_a_disturbed_strike_is_tried_again(disturbance: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strike, "AGAIN_S", 0)
    journal, outcomes = Journal(), [disturbance, None]

    async def foreign(fault: Fault) -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome
        journal.note(fault.kind, "kafka", "sent")

    async def nothing(_: Fault) -> None:
        raise AssertionError

    messages = SimpleNamespace(foreign=foreign, damaged=nothing)
    objects = SimpleNamespace(damage_raw=nothing, delete_ready=nothing, damage_record=nothing, damage_data=nothing)
    workers = SimpleNamespace(wake_all=lambda: None, extras=[])
    striker = Striker(workers, SimpleNamespace(), journal, Rates(), Damages(messages, objects, SimpleNamespace(put=nothing)))
    async with asyncio.TaskGroup() as group:
        group.create_task(striker._strike(Fault(0, Kind.FOREIGN_MESSAGE)))
    assert [one.kind for one in journal.struck] == [one.kind for one in journal.missed] == [Kind.FOREIGN_MESSAGE]


async def test_the_end_of_a_run_ends_its_strikes() -> None:
    began = asyncio.Event()

    async def foreign(_: Fault) -> None:
        began.set()
        await asyncio.Event().wait()

    objects = SimpleNamespace(damage_raw=foreign, delete_ready=foreign, damage_record=foreign, damage_data=foreign)
    damages = Damages(SimpleNamespace(foreign=foreign, damaged=foreign), objects, SimpleNamespace(put=foreign))
    striker = Striker(SimpleNamespace(), SimpleNamespace(), Journal(), Rates(), damages)
    task = asyncio.create_task(striker._strike(Fault(0, Kind.FOREIGN_MESSAGE)))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
