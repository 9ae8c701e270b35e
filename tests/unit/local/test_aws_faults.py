"""The AWS stand-in's failures: which call meets which, by the seed alone, and what each does to it."""

import json
from collections import Counter
from itertools import chain

import pytest

from app.local.services.aws_faults import AwsFault, AwsFaults, FaultAnswer, Rates, drawn, operation_of

PUT, GET = "Kinesis.PutRecords", "Kinesis.GetRecords"
RATES = Rates(seed=7, s3=0.05, throttled=0.2, partial=0.1, twice=0.1, dynamodb=0.02)


def test_operations_are_named_by_target_or_method():
    assert operation_of("POST", "Kinesis_20131202.PutRecords") == PUT
    assert operation_of("POST", "DynamoDB_20120810.Query") == "DynamoDB.Query"
    assert operation_of("PUT", "") == "S3.PUT"


def test_the_same_seed_fails_the_same_calls_whatever_lies_between():
    def faults(operations: list[str]) -> dict[str, list[AwsFault | None]]:
        found: dict[str, list[AwsFault | None]] = {}
        target = AwsFaults(timeout_s=0)
        target.set(RATES)
        for operation in operations:
            before = Counter(target.struck)
            target.serve(
                operation, b'{"Records": [{}], "ShardIterator": "i"}', lambda _: FaultAnswer(200, [], b'{"Records": [{}]}')
            )
            new = Counter(target.struck) - before
            found.setdefault(operation, []).append(next(iter(new), None))
        return found

    some = ["S3.PUT"] * 400 + [PUT] * 400 + [GET] * 400
    mixed = list(chain.from_iterable(zip(some[:400], some[400:800], some[800:], strict=True)))
    assert faults(some) == faults(mixed)
    assert [drawn(RATES, "S3.PUT", n) for n in range(400)] != [
        drawn(Rates(seed=8, s3=0.05), "S3.PUT", n) for n in range(400)
    ]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (
            "S3.GET",
            {
                AwsFault.S3_ERROR: 150,
                AwsFault.S3_SLOW_DOWN: 150,
                AwsFault.S3_RESET: 100,
                AwsFault.S3_LOST: 80,
                AwsFault.S3_TIMEOUT: 20,
            },
        ),
        (PUT, {AwsFault.THROTTLED: 2000, AwsFault.PARTIAL: 800, AwsFault.PUT_TWICE: 720}),
        (GET, {AwsFault.THROTTLED: 2000, AwsFault.PAGE_TWICE: 800}),
        ("DynamoDB.PutItem", {AwsFault.DYNAMODB_ERROR: 100, AwsFault.DYNAMODB_LOST: 100}),
        ("Kinesis.ListShards", {}),
    ],
)
def test_shares_are_what_they_were_set_to(operation, expected):
    found = Counter(kind for n in range(10_000) if (kind := drawn(RATES, operation, n)) is not None)
    assert found.keys() == expected.keys()
    for kind, count in expected.items():
        assert abs(found[kind] - count) < 5 * count**0.5, kind


def test_nothing_fails_until_told_nor_after_it_is_taken_back():
    faults = AwsFaults()
    calls = 0

    def call(_: bytes) -> FaultAnswer:
        nonlocal calls
        calls += 1
        return FaultAnswer(200, [], b"")

    assert faults.serve("S3.PUT", b"", call) == FaultAnswer(200, [], b"")
    assert faults.control("POST", b'{"s3": 1}').status == 200
    assert faults.control("POST", b'{"s4": 1}').status == 400
    assert faults.serve("S3.PUT", b"", call) != FaultAnswer(200, [], b"")
    struck = json.loads(faults.control("DELETE", b"").content)
    assert sum(struck.values()) == 1
    before = calls
    assert faults.serve("S3.PUT", b"", call) == FaultAnswer(200, [], b"")
    assert calls == before + 1
    assert json.loads(faults.control("GET", b"").content) == struck


class Calls:
    def __init__(self, content: bytes = b"{}") -> None:
        self.bodies: list[bytes] = []
        self._content = content

    def __call__(self, body: bytes) -> FaultAnswer:
        self.bodies.append(body)
        return FaultAnswer(200, [], self._content)


def strike(kind: AwsFault, operation: str, body: bytes, calls: Calls) -> FaultAnswer | None:
    """Serve until the fault is of `kind`; its answer, with only its own calls in `calls`."""
    for seed in range(5000):
        rates = Rates(seed=seed, s3=1, throttled=0.3, partial=0.5, twice=1, dynamodb=1)
        if drawn(rates, operation, 0) is kind:
            faults = AwsFaults(timeout_s=0)
            faults.set(rates)
            answer = faults.serve(operation, body, calls)
            assert faults.struck == {kind: 1}
            return answer
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "operation", "status", "made"),
    [
        (AwsFault.S3_ERROR, "S3.PUT", 500, 0),
        (AwsFault.S3_SLOW_DOWN, "S3.PUT", 503, 0),
        (AwsFault.S3_RESET, "S3.PUT", None, 0),
        (AwsFault.S3_LOST, "S3.PUT", None, 1),
        (AwsFault.S3_TIMEOUT, "S3.PUT", None, 1),
        (AwsFault.DYNAMODB_ERROR, "DynamoDB.PutItem", 500, 0),
        (AwsFault.DYNAMODB_LOST, "DynamoDB.PutItem", None, 1),
        (AwsFault.THROTTLED, GET, 400, 0),
        (AwsFault.PUT_TWICE, PUT, 200, 2),
    ],
)
def test_what_is_made_and_what_is_answered(kind, operation, status, made):
    calls = Calls()
    answer = strike(kind, operation, b"body", calls)
    assert (answer.status if answer else None, len(calls.bodies)) == (status, made)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_partial_put_takes_some_and_says_which(count):
    body = json.dumps({"StreamName": "s", "Records": [{"Data": str(n)} for n in range(count)]}).encode()

    class Stream(Calls):
        def __call__(self, taken: bytes) -> FaultAnswer:
            self.bodies.append(taken)
            records = json.loads(taken)["Records"]
            return FaultAnswer(
                200, [], json.dumps({"Records": [{"SequenceNumber": one["Data"]} for one in records]}).encode()
            )

    calls = Stream()
    answer = strike(AwsFault.PARTIAL, PUT, body, calls)
    assert answer is not None
    content = json.loads(answer.content)
    refused = [record for record in content["Records"] if "ErrorCode" in record]
    assert len(content["Records"]) == count
    assert 1 <= len(refused) == content["FailedRecordCount"] <= max(1, count - 1)
    taken = [one["Data"] for one in json.loads(calls.bodies[0])["Records"]] if calls.bodies else []
    assert [record.get("SequenceNumber") for record in content["Records"] if record not in refused] == taken
    assert all(content["Records"][int(name)]["SequenceNumber"] == name for name in taken)


def test_a_page_that_comes_twice_leads_back_to_itself_and_an_empty_one_does_not():
    calls = Calls(b'{"Records": [{"Data": "x"}], "NextShardIterator": "next"}')
    answer = strike(AwsFault.PAGE_TWICE, GET, b'{"ShardIterator": "this"}', calls)
    assert answer is not None
    assert json.loads(answer.content)["NextShardIterator"] == "this"
    faults = AwsFaults()
    faults.set(Rates(twice=1))
    empty = faults.serve(GET, b'{"ShardIterator": "this"}', Calls(b'{"Records": [], "NextShardIterator": "next"}'))
    assert empty is not None
    assert json.loads(empty.content)["NextShardIterator"] == "next"
    assert faults.struck == {}
