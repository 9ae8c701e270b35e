"""Sees that the AWS stand-in has lost its state: somebody reset it, though its process lives."""

from typing import Final

from app.local.stack.probe import await_true, read_url

BUCKETS_PATH: Final = "/moto-api/instream-buckets"
"""Of the AWS stand-in; its module is not imported for it, because it loads all of moto."""
LOOK_EVERY_S: Final = 2.0


async def is_gone(endpoint: str, bucket: str) -> bool:
    """Whether the stand-in at `endpoint` answers that it has no such bucket; no answer says nothing."""
    answer = await read_url(endpoint + BUCKETS_PATH)
    return answer is not None and answer[0] == 200 and bucket not in answer[1].decode().splitlines()


async def until_gone(endpoint: str, bucket: str) -> None:
    """Return once the bucket is gone; looks every two seconds."""
    await await_true(lambda: is_gone(endpoint, bucket), LOOK_EVERY_S)
