"""The chain's decisions: where it ends, what follows from a record, who holds a number, what may be deleted."""

import msgspec
import pytest

from app.core.formats import object_keys
from app.core.formats.flows import BY_NAME, OUTPUTS
from app.core.formats.step_history import Accepted
from app.core.formats.step_message import LedgerEntry
from app.core.formats.transaction_record import OutputObject, TransactionRecord
from app.core.sink.chain import (
    ChainEnd,
    ChainId,
    Holder,
    Leftover,
    LogBounds,
    Put,
    chain_end_after,
    decode_loadable,
    decode_record,
    effects_of,
    encode_record,
    judge_holder,
    judge_leftover,
    numbers_behind,
    staged_by,
)
from app.core.sink.open_transaction import CommitRules, Content, OpenTransaction, encode_outputs, record_of
from app.errors import ChainBroken, ChainGap, NewerFormat, TopicRecreated

PLACE = ChainId(1, 3)
HOUR_MS = 1_700_000_000_000


def record(number: int = 7, random: str = "aa", **changes: object) -> TransactionRecord:
    txn = object_keys.txn_id(*PLACE, number, random)
    full = OutputObject(
        output="ledger", rows=2, bytes=10, sha256="ab", staged_key=object_keys.staged_key(txn, "ledger"),
        data_key=object_keys.data_key("ledger", txn, HOUR_MS), manifest_key=object_keys.manifest_key("ledger", txn, HOUR_MS),
    )  # fmt: skip
    outputs = [full if flow.name == "ledger" else OutputObject(output=flow.name, rows=0) for flow in OUTPUTS]
    made = TransactionRecord(
        txn_id=txn, epoch=1, partition=3, number=number, first_offset=10, last_offset=20, step_number=9, step_offset=18,
        step_digest="dd", stream_time_ms=5, committed_at_ms=HOUR_MS, outputs=outputs,
        ready_key=object_keys.ready_key(txn, HOUR_MS),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def test_a_chain_without_records_begins_at_the_first_offset() -> None:
    beginning = chain_end_after(None)
    assert (beginning.next_offset, beginning.read_from, beginning.accepted) == (0, 0, Accepted())


def test_behind_a_record_the_last_counted_message_is_read_again() -> None:
    end = chain_end_after(record())
    assert (end.number, end.next_offset, end.read_from, end.accepted) == (7, 21, 18, Accepted(9, 18))
    assert chain_end_after(record(step_digest="")).read_from == 21


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (LogBounds(0, 21), None),
        (LogBounds(21, 21), None),
        (LogBounds(21, 40), None),
        (LogBounds(22, 40), ChainGap),
        (LogBounds(0, 20), TopicRecreated),
        (LogBounds(0, 0), TopicRecreated),
    ],
)
def test_the_end_is_compared_with_the_log(log: LogBounds, error: type[Exception] | None) -> None:
    end = chain_end_after(record())
    if error is None:
        assert end.check(log) is None
    else:
        with pytest.raises(error):
            end.check(log)


def test_effects_follow_from_the_record_alone() -> None:
    effects = effects_of(record(), "lake")
    txn, hour = "1-3-7-aa", "dt=2023-11-14/hour=22"
    assert [(m.source, m.target, m.sha256) for m in effects.moves] == [
        (f"jobdata/{txn}/ledger.tsv.zst", f"data/ledger/{hour}/{txn}.tsv.zst", "ab")
    ]
    manifest = (
        b'{"entries":[{"url":"s3://lake/data/ledger/' + hour.encode() + b'/1-3-7-aa.tsv.zst","mandatory":true,'
        b'"meta":{"content_length":10}}]}'
    )
    assert effects.manifests == [Put(f"manifests/{hour}/{txn}/ledger.manifest", manifest)]
    assert effects.ready.key == f"manifests/{hour}/{txn}/ready.json"
    assert msgspec.json.decode(effects.ready.body)["txn_id"] == txn
    assert effects.announcement == effects.ready.body
    assert effects.deletes == [f"jobdata/{txn}/ledger.tsv.zst"]
    assert effects_of(record(), "lake") == effects


def test_a_record_reads_back_only_from_its_own_place() -> None:
    body = encode_record(record())
    assert decode_record(body, PLACE, 7) == record()
    for place, number, other in (
        (PLACE, 8, body), (ChainId(1, 4), 7, body), (ChainId(2, 3), 7, body), (PLACE, 7, b"{"), (PLACE, 7, b"{}"),
        (PLACE, 7, encode_record(record(version=0))), (PLACE, 7, body.replace(b"1-3-7-aa", b"1-3-7-\xffa", 1)),
        (PLACE, 7, body.replace(b'"data_key":"data', b'"dbta_key":"data')),
        (PLACE, 7, body.replace(b'"redirects"', b'"rejected"', 1)),
    ):  # fmt: skip
        with pytest.raises(ChainBroken):
            decode_record(other, place, number)


def test_a_record_of_a_newer_version_is_told_from_one_that_cannot_be_read() -> None:
    """It may differ in everything but its version."""
    for newer, why in (
        (encode_record(record(version=2)), "record 7 of partition 3 of epoch 1 of version 2, this reader knows .* up to 1"),
        (b'{"version":2,"txn_id":7}', "version 2"),
    ):
        with pytest.raises(NewerFormat, match=why):
            decode_record(newer, PLACE, 7)


def test_rows_that_this_version_does_not_know_hinder_their_loading_and_not_the_end_of_their_transaction() -> None:
    body, newest = encode_record(record()), BY_NAME["ledger"].version
    for newer, why in (
        (
            body.replace(b'"output":"ledger"', b'"output":"refunds"'),
            "record 7 of partition 3 of epoch 1 with output 'refunds'",
        ),
        (body.replace(b'"staged_key":"jobdata', b'"version":%d,"staged_key":"jobdata' % (newest + 1)), "columns of ledger"),
    ):
        with pytest.raises(NewerFormat, match=why):
            decode_loadable(newer, PLACE, 7)
        assert effects_of(decode_record(newer, PLACE, 7), "lake").moves == effects_of(record(), "lake").moves


def test_an_output_that_this_version_does_not_know_hinders_nothing_while_it_has_no_rows() -> None:
    """A newer sink lists its outputs in every record."""
    body = encode_record(record()).replace(b'"redirects"', b'"refunds"')
    assert [out.output for out in decode_loadable(body, PLACE, 7).outputs if out.rows] == ["ledger"]


def test_a_field_that_the_reader_does_not_know_is_ignored() -> None:
    assert decode_record(encode_record(record())[:-1] + b',"later":[1]}', PLACE, 7) == record()


def test_a_listing_has_every_number() -> None:
    listed = [object_keys.record_key(*PLACE, number) for number in (4, 5, 6)]
    assert numbers_behind(PLACE, 3, listed) == [4, 5, 6]
    assert numbers_behind(PLACE, 3, []) == []
    for wrong in (
        [listed[0], listed[2]],
        listed[1:],
        [f"{object_keys.chain_prefix(*PLACE)}notes.txt"],
        ["transactions/1/30/x"],
    ):
        with pytest.raises(ChainBroken):
            numbers_behind(PLACE, 3, wrong)


def test_who_holds_a_number() -> None:
    assert judge_holder(record(random="aa"), record(random="aa")) is Holder.OURS
    assert judge_holder(record(random="aa"), record(random="bb")) is Holder.FOREIGN


@pytest.mark.parametrize(
    ("holder", "verdict"),
    [(None, Leftover.KEEP), (record(random="bb"), Leftover.DELETE), (record(random="aa"), Leftover.FINISH)],
)
def test_what_may_be_done_with_leftovers(holder: TransactionRecord | None, verdict: Leftover) -> None:
    staged = staged_by("jobdata/1-3-7-aa/ledger.tsv.zst")
    assert staged is not None
    assert (staged.chain_id, staged.number, staged.txn_id) == (PLACE, 7, "1-3-7-aa")
    assert judge_leftover(staged, holder) is verdict


@pytest.mark.parametrize("key", ["jobdata/notes.txt", "jobdata/1-3-7/ledger", "data/1-3-7-aa/ledger", "jobdata/1-3-7-aa"])
def test_a_key_that_is_no_staged_object(key: str) -> None:
    assert staged_by(key) is None


def test_an_open_transaction_without_rows_becomes_a_record_without_objects() -> None:
    open_ = OpenTransaction(PLACE, ChainEnd(), 0)
    made = record_of(open_, "1-3-1-aa", encode_outputs(Content({}), "1-3-1-aa"), HOUR_MS)
    assert (made.number, made.first_offset, made.last_offset, made.step_number, made.step_offset) == (1, 0, -1, 0, -1)
    assert made.outputs == [OutputObject(output=flow.name, rows=0) for flow in OUTPUTS]
    assert not open_.due(1e9, CommitRules(10, 1, 60))


def test_the_record_names_what_its_files_hold() -> None:
    files = encode_outputs(Content({}, [LedgerEntry("b", "joined", 1, b"x")]), "1-3-1-aa")
    made = record_of(OpenTransaction(PLACE, ChainEnd(), 0), "1-3-1-aa", files, HOUR_MS)
    ledger = next(out for out in made.outputs if out.output == "ledger")
    body = next(file.body for file in files if file.output == "ledger")
    assert (ledger.rows, ledger.bytes, len(ledger.sha256)) == (1, len(body), 64)
    assert (ledger.staged_key, ledger.data_key) == (
        "jobdata/1-3-1-aa/ledger.tsv.zst", "data/ledger/dt=2023-11-14/hour=22/1-3-1-aa.tsv.zst",
    )  # fmt: skip
