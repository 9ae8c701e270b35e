"""The AWS stand-in told to fail over HTTP: what the adapters say of a call is what became of it."""

import json
from collections import Counter
from urllib.request import Request, urlopen

from app.adapters.s3 import S3ObjectStore
from app.errors import OutcomeUnknown, ServiceUnavailable
from app.local.services.aws_faults import FAULTS_PATH
from app.settings import Settings


def control(url: str, method: str, rates: bytes | None = None) -> Counter[str]:
    with urlopen(Request(url + FAULTS_PATH, data=rates, method=method), timeout=5) as answer:
        return Counter(json.loads(answer.read()))


async def test_half_of_all_calls_fail_and_no_answer_lies(aws_stand_in, aws_settings: Settings) -> None:
    store = S3ObjectStore(aws_settings)
    await store.ensure()
    # this seed has no call in it that is left unanswered: that would be 11 s each
    before = control(aws_stand_in.url, "POST", b'{"seed": 1, "s3": 0.5}')
    outcomes: dict[str, set[str]] = {"stored": set(), "ServiceUnavailable": set(), "OutcomeUnknown": set()}
    try:
        for number in range(40):
            try:
                await store.put(f"k{number}", b"x")
            except (ServiceUnavailable, OutcomeUnknown) as exc:
                outcomes[type(exc).__name__].add(f"k{number}")
            else:
                outcomes["stored"].add(f"k{number}")
    finally:
        struck = control(aws_stand_in.url, "DELETE") - before
    assert struck.keys() >= {"s3_500", "s3_503", "s3_reset", "s3_answer_lost"}
    assert len(outcomes["stored"]) > 20
    there = {info.key async for info in store.list("k")}
    assert outcomes["stored"] <= there
    await store.put("k-after", b"x")
    assert control(aws_stand_in.url, "GET") - before == struck
    await store.close()
