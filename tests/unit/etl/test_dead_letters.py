"""Input that cannot be read is set aside with its reason, stops nobody, and stops everything where it is too much."""

from collections.abc import Sequence

import msgspec
import pytest
import zstandard

from app.core.etl.meta import decode_meta
from app.core.formats.batch import new_batch_id, seal
from app.core.formats.block import (
    BlockHeader,
    RefusedRecord,
    decode_header,
    decode_refused,
    encode_block,
    encode_refused,
    frame_of,
    open_frame,
)
from app.core.formats.dead_letter import (
    MAX_LETTER_BYTES,
    REMEMBERED,
    DeadLetterLimit,
    LetterHead,
    Tally,
    decode_letter,
    encode_letter,
)
from app.core.formats.step_message import DeadLetter, Replay, StepMessage, decode_step, encode_step
from app.core.formats.stored_line import StoredLine
from app.errors import DeadLettersExceeded, EnvelopeInvalid, FormatInvalid, FrameInvalid
from tests.builders.source_log import batch_id, block, enricher, etl_rules, event, log_of, tick
from tests.worlds.etl_run import Run, ledger_of

GOOD = block(event("b", "ad_click"), batch=2, number=3)
OTHER_LINES = encode_block(msgspec.structs.replace(decode_header(GOOD), lines=2), frame_of(GOOD))
BATCH = (batch_id(2), 3, 0)
NO_BATCH = (None, None, None)


def new_run(share: float = 0.05, least: int = 10) -> Run:
    return Run(etl_rules(dead_letters=DeadLetterLimit(share, least)), enricher())


def place_of(letter: DeadLetter) -> tuple[str | None, int | None, int | None]:
    return letter.batch_id, letter.block, letter.attempt


@pytest.mark.parametrize(("unreadable", "place", "reason"), [
    (GOOD[:-4], BATCH, "FrameInvalid"),
    (GOOD + b"x", BATCH, "FrameInvalid"),
    (GOOD[:53], BATCH, "FrameInvalid"),
    (GOOD[:53] + b"\x00" * 40, BATCH, "FrameInvalid"),
    (OTHER_LINES, BATCH, "FrameInvalid: block 3 of batch 00000000-0000-0000-0000-000000000002 holds 1 lines, not 2"),
    (block(event("b"), batch=2, number=3, partition=3), BATCH, "EnvelopeInvalid: block of partition 3 on partition 0"),
    (b"neither", NO_BATCH, "EnvelopeInvalid: not a version 1 block"),
    (b"", NO_BATCH, "EnvelopeInvalid"),
    (b"\x81garbage", NO_BATCH, "EnvelopeInvalid: control message cannot be read"),
])  # fmt: skip
def test_what_cannot_be_read_is_set_aside_with_its_reason_and_its_neighbours_go_on(
    unreadable: bytes, place: tuple[str | None, int | None, int | None], reason: str
) -> None:
    run = new_run()
    run.step(log_of([tick(s0=0)]))
    values = [block(event("a", "ad_click"), batch=1), unreadable, tick(s0=1), block(event("c", "ad_click", at_s=1), batch=3)]
    log = log_of(values, first=1)
    assert run.etl.take(log) == 4
    decision = run.etl.decide(log, 2, 0)
    [letter] = decision.message.dead_letters
    assert (letter.offset, place_of(letter)) == (2, place)
    assert letter.reason.startswith(reason)
    assert decision.message.emits
    assert decision.pressing
    run.step(log)
    assert [row["event_id"] for row in run.rows("ad_clicks")] == ["a", "c"]
    assert {batch for batch, *_ in ledger_of(run.steps)} == {batch_id(1), batch_id(3)}
    assert run.etl.stream_time_ms > 0


def test_a_record_of_kinesis_that_is_no_block_is_a_dead_letter_and_no_sign_of_broken_readers() -> None:
    """Other programs wrote it: however many there are, the worker does not stop (rule E8)."""
    run = new_run(share=0.0, least=1)
    strange = encode_refused(RefusedRecord("shard-7", "49", "not a version 1 block"), b"\x81hello")
    run.feed(log_of([strange, block(event("a", "ad_click")), strange, strange]))
    letters = [letter for step in run.steps for letter in step.dead_letters]
    assert [letter.offset for letter in letters] == [0, 2, 3]
    assert {letter.reason for letter in letters} == {"Kinesis record shard-7@49: not a version 1 block"}
    assert [row["event_id"] for row in run.rows("ad_clicks")] == ["a"]


@pytest.mark.parametrize("cut", [b"\x00", b"\x00{}", b"\x00{}\n", b"\x00\xff\n", b"\x00" * 60])
def test_a_message_that_only_begins_like_a_refused_record_is_any_dead_letter(cut: bytes) -> None:
    assert decode_refused(cut) is None
    [letter] = new_run().feed(log_of([cut])).steps[0].dead_letters
    assert letter.reason.startswith("EnvelopeInvalid")


@pytest.mark.parametrize("unreadable", [GOOD[:-4], OTHER_LINES])
@pytest.mark.parametrize("cuts", [(4,), (1, 1, 1, 1), (2, 2)])
def test_the_copy_that_the_audit_sends_is_taken_however_often_the_bad_one_came(
    unreadable: bytes, cuts: Sequence[int]
) -> None:
    whole = block(event("b", "ad_click"), batch=2, number=3, attempt=1)
    run = new_run().feed(log_of([unreadable, unreadable, whole, unreadable]), iter(cuts))
    dead = [letter.offset for step in run.steps for letter in step.dead_letters]
    assert dead == [0, 1], "once the block is known, a copy of it is a replay, whatever it looks like"
    assert [replay for step in run.steps for replay in step.replays] == [Replay(batch_id(2), 3, 0)]
    assert [row["event_id"] for row in run.rows("ad_clicks")] == ["b"]
    assert set(ledger_of(run.steps).values()) == {1}


def test_a_copy_that_is_bad_again_is_set_aside_again_with_its_attempt() -> None:
    bad = [block(event("b", "ad_click"), batch=2, attempt=n)[:-4] for n in (0, 1, 2)]
    run = new_run().feed(log_of(bad), iter([1] * 3))
    assert [letter.attempt for step in run.steps for letter in step.dead_letters] == [0, 1, 2]
    assert not ledger_of(run.steps)


def test_the_letters_hold_the_messages_as_they_were() -> None:
    log = [message._replace(timestamp_ms=5) for message in log_of([tick(s0=1), b"neither", GOOD[:-4]])]
    decision = new_run().etl.decide(log, 1, -1)
    first, second = map(decode_letter, decision.letters)
    assert (first.body, second.body) == (b"neither", GOOD[:-4])
    assert (first.head.offset, first.head.batch_id, first.head.bytes) == (1, None, 7)
    assert second.head == LetterHead(
        reason=decision.message.dead_letters[1].reason, epoch=1, partition=0, offset=2, appended_at_ms=5,
        batch_id=batch_id(2), block=3, attempt=0, bytes=len(GOOD) - 4,
    )  # fmt: skip


def test_a_letter_is_cut_and_says_how_long_it_was() -> None:
    head = LetterHead(reason="r", epoch=1, partition=0, offset=7, appended_at_ms=0, bytes=3 * MAX_LETTER_BYTES)
    letter = decode_letter(encode_letter(head, b"\n" * 3 * MAX_LETTER_BYTES))
    assert letter == (head, b"\n" * MAX_LETTER_BYTES)


@pytest.mark.parametrize("message", [b"", b"{}\n", b"nonsense", b'{"reason":"r"}'])
def test_what_is_no_letter_is_no_letter(message: bytes) -> None:
    with pytest.raises(FormatInvalid):
        decode_letter(message)


def test_a_step_of_before_has_no_dead_letters() -> None:
    step = StepMessage(1, 0, 1, -1, 0, 0, 0, b"", {}, {}, [], [], [], ["alarm"])
    packed = msgspec.msgpack.decode(encode_step(step)[4:])
    assert packed.pop() == []
    assert decode_step(b"STP1" + msgspec.msgpack.encode(packed)) == step


@pytest.mark.parametrize("changed", [
    {"lines": 0}, {"first_line": 2**31}, {"block": 5}, {"blocks_in_batch": 0}, {"received_at_ms": 2**63},
])  # fmt: skip
def test_an_envelope_that_says_what_no_batch_has_is_none(changed: dict[str, int]) -> None:
    header = BlockHeader(1, batch_id(1), 3, 4, 0, 1, 0, 0, 1_750_000_000_000)
    assert decode_header(encode_block(header, b"")) == header
    with pytest.raises(EnvelopeInvalid, match="no batch has"):
        decode_header(encode_block(msgspec.structs.replace(header, **changed), b""))


def test_a_frame_whose_bits_were_turned_is_not_taken_for_other_lines() -> None:
    """Without its checksum zstd takes most of these for good, and a visitor's text would change in silence."""
    lines = [
        StoredLine(b'{"received_at":1,"v":"%s"}' % f"{n * 7919 % 1009}".encode(), b"k", True, None, 1) for n in range(50)
    ]
    [sealed] = seal(new_batch_id(1_750_000_000_000, bytes(10)), 1, 1, lines).blocks
    frame = frame_of(sealed)
    text = open_frame(frame)
    assert zstandard.get_frame_parameters(frame).has_checksum
    for at in range(4, len(frame)):
        turned = frame[:at] + bytes([frame[at] ^ 0x10]) + frame[at + 1 :]
        try:
            assert open_frame(turned) == text, f"byte {at}"
        except FrameInvalid:
            continue


# --- too many


def bad(number: int, attempt: int = 0) -> bytes:
    return block(event(f"e{number}", "ad_click"), batch=number, attempt=attempt)[:-4]


def good(number: int) -> bytes:
    return block(event(f"e{number}", "ad_click"), batch=number)


def test_more_than_the_share_stops_the_partition_every_time_it_is_tried() -> None:
    run = new_run(share=0.5, least=3)
    log = log_of([good(1), good(2), bad(3), bad(4), good(5), bad(6), bad(7)])
    run.feed(log[:6], iter([1] * 6))  # 3 of 6: not more than half
    for _ in range(2):
        with pytest.raises(DeadLettersExceeded, match="4 of the last 7 blocks cannot be read, this one at offset 6: Frame"):
            run.step(log[6:])
        run.restart()  # the tally is in the log: a new worker stops as well
    run.rules = etl_rules(dead_letters=DeadLetterLimit(1, 3))  # an operator passes over them
    run.restart()
    run.step(log[6:])
    assert [letter.offset for step in run.steps for letter in step.dead_letters] == [2, 3, 5, 6]


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_where_it_stops_does_not_depend_on_how_messages_are_grouped(size: int) -> None:
    run = new_run(share=0.3, least=4)
    log = log_of(
        [good(1), tick(s0=1), bad(2), b"neither", good(3), bad(4), good(5), bad(6), *(good(n) for n in range(7, 40))]
    )
    with pytest.raises(DeadLettersExceeded, match=r"4 of the last \d+ blocks"):
        run.feed(log, iter([size] * 100))
    assert decode_meta(run.steps[-1].meta if run.steps else None).tally.dead <= 3


def test_fewer_than_the_least_stop_nobody() -> None:
    run = new_run(share=0.01, least=5).feed(log_of([bad(n) for n in range(4)]))
    assert len(run.steps[0].dead_letters) == 4


def test_what_the_audit_sends_for_ever_counts_once() -> None:
    run = new_run(share=0.1, least=2)
    run.feed(log_of([bad(1), *(bad(1, attempt=n) for n in range(1, 60))]))
    assert decode_meta(run.steps[-1].meta).tally == Tally(60, 1)


def test_replays_and_ticks_are_no_dead_letters() -> None:
    run = new_run().feed(log_of([good(1), good(1), tick(s0=1)]))
    assert decode_meta(run.steps[-1].meta).tally == Tally(2, 0)


def test_old_blocks_weigh_less_and_less() -> None:
    tally = Tally()
    for _ in range(100):
        tally = tally.after(dead=True)
    for _ in range(10 * REMEMBERED):
        tally = tally.after(dead=False)
    assert tally.blocks < REMEMBERED
    assert tally.dead == 0
    for _ in range(100):
        tally = tally.after(dead=True)
    assert DeadLetterLimit().is_exceeded(tally)
