"""Failures of the AWS stand-in, by a seed: kinds and rates of failures of S3, Kinesis and DynamoDB.

The failing calls are fixed: the n-th call of an operation meets the same fault in every run with the same seed and rates.
Over HTTP on the stand-in's own port: POST /moto-api/instream-faults {"seed": ..., "s3": 0.05, ...}, GET (fault -> number of
strikes so far), DELETE (no more faults).
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Final, NamedTuple, assert_never

import msgspec

FAULTS_PATH: Final = "/moto-api/instream-faults"
TIMEOUT_S: Final = 11.0
"""Longer than any client of ours waits for an answer."""


class AwsFault(StrEnum):
    """The kinds of faults."""

    S3_ERROR = "s3_500"
    S3_SLOW_DOWN = "s3_503"
    S3_RESET = "s3_reset"
    """The connection is reset before the call is made."""
    S3_LOST = "s3_answer_lost"
    """The call is made, and the connection reset."""
    S3_TIMEOUT = "s3_timeout_after_success"
    """The call is made, and never answered."""
    THROTTLED = "kinesis_throttled"
    PARTIAL = "kinesis_partial"
    """PutRecords takes some of its records."""
    PUT_TWICE = "kinesis_put_twice"
    """PutRecords is made twice: every record is there as two."""
    PAGE_TWICE = "kinesis_page_twice"
    """GetRecords gives an iterator that leads to the same records again."""
    DYNAMODB_ERROR = "dynamodb_500"
    DYNAMODB_LOST = "dynamodb_answer_lost"
    """The call is made, and the connection reset."""


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Share of the calls that fail, 0 to 1."""

    seed: int = 0
    s3: float = 0.0
    """Of all calls to S3."""
    throttled: float = 0.0
    """Of GetRecords and PutRecords."""
    partial: float = 0.0
    """Of PutRecords that are not throttled."""
    twice: float = 0.0
    """Of GetRecords and PutRecords that are neither."""
    dynamodb: float = 0.0


class FaultAnswer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: list[tuple[str, str]]
    content: bytes


Call = Callable[[bytes], FaultAnswer]
"""The real call; its argument is the body."""
_S3_KINDS: Final = {
    AwsFault.S3_ERROR: 0.3,
    AwsFault.S3_SLOW_DOWN: 0.3,
    AwsFault.S3_RESET: 0.2,
    AwsFault.S3_LOST: 0.16,
    AwsFault.S3_TIMEOUT: 0.04,
}
"""The shares of the failures of S3."""
_PUT, _GET = "Kinesis.PutRecords", "Kinesis.GetRecords"


def operation_of(method: str, target: str) -> str:
    """The name of a call: `S3.PUT`, `Kinesis.PutRecords`, `DynamoDB.Query`.

    Args:
        method: the HTTP request's method.
        target: the header X-Amz-Target; empty for S3.
    """
    service, _, name = target.partition(".")
    return f"{service.partition('_')[0]}.{name}" if name else f"S3.{method}"


def drawn(rates: Rates, operation: str, number: int) -> AwsFault | None:
    """The fault that the `number`-th call of an operation meets."""
    chance = random.Random(f"{rates.seed} {operation} {number}")
    for kinds, share in _possible(rates, operation):
        if chance.random() < share:
            return chance.choices(list(kinds), list(kinds.values()))[0]
    return None


def _possible(rates: Rates, operation: str) -> list[tuple[dict[AwsFault, float], float]]:
    """Kinds (with their weights) and the share of calls that meet one of them, in the order in which they are drawn."""
    if operation.startswith("S3."):
        return [(_S3_KINDS, rates.s3)]
    if operation.startswith("DynamoDB."):
        return [({AwsFault.DYNAMODB_ERROR: 1, AwsFault.DYNAMODB_LOST: 1}, rates.dynamodb)]
    if operation == _PUT:
        return [
            ({AwsFault.THROTTLED: 1}, rates.throttled),
            ({AwsFault.PARTIAL: 1}, rates.partial),
            ({AwsFault.PUT_TWICE: 1}, rates.twice),
        ]
    if operation == _GET:
        return [({AwsFault.THROTTLED: 1}, rates.throttled), ({AwsFault.PAGE_TWICE: 1}, rates.twice)]
    return []


class AwsFaults:
    """The faults of one stand-in; none before the first `set`."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._rates = Rates()
        self._calls: Counter[str] = Counter()
        self._struck: Counter[AwsFault] = Counter()
        self._lock = threading.Lock()
        self._timeout_s = timeout_s

    @property
    def struck(self) -> dict[AwsFault, int]:
        """Fault -> number of strikes."""
        with self._lock:
            return dict(self._struck)

    def set(self, rates: Rates) -> None:
        """Fail by `rates` from now on; calls are counted from here."""
        with self._lock:
            self._rates = rates
            self._calls.clear()

    def serve(self, operation: str, body: bytes, call: Call) -> FaultAnswer | None:
        """The answer to a call, or None where its connection is to be reset."""
        with self._lock:
            number = self._calls[operation]
            self._calls[operation] += 1
            rates = self._rates
        kind = drawn(rates, operation, number)
        if kind is None:
            return call(body)
        struck, answer = self._strike(kind, body, call, random.Random(f"{rates.seed} {operation} {number} body"))
        if struck:
            with self._lock:
                self._struck[kind] += 1
        return answer

    def _strike(self, kind: AwsFault, body: bytes, call: Call, chance: random.Random) -> tuple[bool, FaultAnswer | None]:
        """Whether the fault changed anything, and the answer of the call."""
        match kind:
            case AwsFault.S3_ERROR | AwsFault.S3_SLOW_DOWN | AwsFault.DYNAMODB_ERROR | AwsFault.THROTTLED:
                return True, _REFUSALS[kind]
            case AwsFault.S3_RESET:
                return True, None
            case AwsFault.PAGE_TWICE:
                return _page_twice(body, call)
            case AwsFault.PARTIAL:
                return True, _partial(body, call, chance)
            case AwsFault.PUT_TWICE:
                call(body)
                return True, call(body)
            case AwsFault.S3_LOST | AwsFault.S3_TIMEOUT | AwsFault.DYNAMODB_LOST:
                call(body)
                if kind is AwsFault.S3_TIMEOUT:
                    time.sleep(self._timeout_s)
                return True, None
            case _:
                assert_never(kind)

    def control(self, method: str, body: bytes) -> FaultAnswer:
        """The HTTP control."""
        if method == "POST":
            try:
                self.set(msgspec.json.decode(body, type=Rates))
            except msgspec.DecodeError as exc:
                return FaultAnswer(400, _JSON, msgspec.json.encode({"error": str(exc)}))
        elif method == "DELETE":
            self.set(Rates())
        return FaultAnswer(200, _JSON, msgspec.json.encode(self.struck))


_JSON: Final = [("Content-Type", "application/json")]
_AWS_JSON: Final = [("Content-Type", "application/x-amz-json-1.1")]


def _s3_error(status: int, code: str, text: str) -> FaultAnswer:
    content = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{text}</Message></Error>'
    return FaultAnswer(status, [("Content-Type", "application/xml")], content.encode())


def _json_error(status: int, code: str, text: str) -> FaultAnswer:
    return FaultAnswer(status, _AWS_JSON, msgspec.json.encode({"__type": code, "message": text}))


_REFUSALS: Final = {
    AwsFault.S3_ERROR: _s3_error(500, "InternalError", "We encountered an internal error. Please try again."),
    AwsFault.S3_SLOW_DOWN: _s3_error(503, "SlowDown", "Please reduce your request rate."),
    AwsFault.DYNAMODB_ERROR: _json_error(500, "InternalServerError", "The request processing has failed."),
    AwsFault.THROTTLED: _json_error(400, "ProvisionedThroughputExceededException", "Rate exceeded for shard."),
}
"""Kinds that answer instead of the call."""


def _page_twice(body: bytes, call: Call) -> tuple[bool, FaultAnswer]:
    """The page, and the iterator that it was asked for with as the next one; an empty page stays as it is."""
    answer = call(body)
    page = msgspec.json.decode(answer.content)
    if answer.status != 200 or not page.get("Records"):
        return False, answer
    page["NextShardIterator"] = msgspec.json.decode(body)["ShardIterator"]
    return True, answer._replace(content=msgspec.json.encode(page))


def _partial(body: bytes, call: Call, chance: random.Random) -> FaultAnswer:
    """Put some of the records; the others are answered as throttled or failed, at their places."""
    request: dict[str, Any] = msgspec.json.decode(body)
    records = request["Records"]
    refused = set(chance.sample(range(len(records)), chance.randint(1, max(1, len(records) - 1))))
    taken = [record for number, record in enumerate(records) if number not in refused]
    answers: Iterator[Any] = iter(())
    if taken:
        answer = call(msgspec.json.encode({**request, "Records": taken}))
        if answer.status != 200:
            return answer
        answers = iter(msgspec.json.decode(answer.content)["Records"])
    codes = ("ProvisionedThroughputExceededException", "InternalFailure")
    merged = [
        {"ErrorCode": chance.choice(codes), "ErrorMessage": "on demand"} if number in refused else next(answers)
        for number in range(len(records))
    ]
    return FaultAnswer(200, _AWS_JSON, msgspec.json.encode({"FailedRecordCount": len(refused), "Records": merged}))
