"""One S3 bucket through boto3."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import ClientError

from app.adapters.aws import BOTO_ERRORS, Threads, client_config, error_code, failure, made, new_session, status_of
from app.adapters.ports import ObjectInfo, PutResult
from app.adapters.s3_bucket import expected_owner, make_bucket
from app.clock import Clock, SystemClock
from app.core.backoff import Backoff
from app.errors import AccessDenied, ObjectMissing, OutsideError, ServiceUnavailable
from app.settings import Settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CopySourceTypeDef, DeleteTypeDef

THREADS: Final = 32
ATTEMPTS: Final = 3
PAGE_KEYS: Final = 1000
"""Most keys in one listing, and in one DeleteObjects. Source: S3 API, ListObjectsV2 and DeleteObjects."""
CONFLICT_TRIES: Final = 6
"""How often a conditional PUT that met another one in flight (409) is tried."""
CONFLICT_BACKOFF: Final = Backoff(first_s=0.05)
_GONE: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_DENIED: Final = frozenset({"AccessDenied", "403"})
"""Not among them: wrong signatures, expired credentials, a clock that is off. Those may be over with the next call."""
_NO_SUCH_RANGE: Final = 416
"""The object ends before the range begins."""
_PERMISSIONS: Final = (
    "allow s3:GetObject on the bucket's objects and s3:ListBucket on the bucket; without s3:ListBucket S3 answers 403 where "
    "a key is missing"
)
"""Source: S3 API, GetObject and HeadObject, "Permissions"."""


def skew_ms(sent_ms: int, received_ms: int, date_ms: int) -> int:
    """The least difference between our clock and the service's that one answer proves.

    A Date header names a whole second and was written between our sending and our receiving, so an answer only bounds the
    difference: it is in (sent - date - 1000, received - date]. Zero when that admits zero.
    """
    least, most = sent_ms - date_ms - 999, received_ms - date_ms
    if least > 0:
        return least
    return min(most, 0)


class S3ObjectStore:
    """The bucket named in the settings. Endpoints other than AWS are addressed by path."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._bucket = settings.bucket
        self._place: dict[str, Any] = {"Bucket": settings.bucket} | expected_owner(settings)
        self._clock = clock or SystemClock()
        self._threads = Threads("s3", THREADS)
        self._client = _new_client()
        self._skew_ms: int | None = None

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket

    @property
    def clock_skew_ms(self) -> int | None:
        """The least difference (ours minus the service's) that the last answer proves; None before the first."""
        return self._skew_ms

    async def ensure(self) -> None:
        """Create the bucket if it is not there (`app.adapters.s3_bucket`).

        Raises:
            ConfigurationError: the bucket belongs to another account.
        """
        try:
            await self._threads.run(make_bucket, self._client, self._settings)
        except BOTO_ERRORS as exc:
            raise failure(f"making bucket {self._bucket}", exc) from exc

    async def put(self, key: str, body: bytes) -> None:
        """Store `body`, replacing what is there."""
        try:
            await self._threads.run(self._put, key, body, {})
        except BOTO_ERRORS as exc:
            raise failure(f"PutObject {key}", exc, write=True) from exc

    async def put_if_absent(self, key: str, body: bytes) -> PutResult:
        """Store `body` unless the key exists.

        EXISTS may mean our own object: boto3 repeats a PUT whose answer was lost, and finds the object of the first one
        (rule S4). 409 says that another conditional PUT of the key is in flight: the PUT is repeated until one of them has
        won.

        Raises:
            ServiceUnavailable: nothing was stored, or 409 did not end.
            OutcomeUnknown: the answer was lost.
        """
        for conflicts in range(1, CONFLICT_TRIES + 1):
            try:
                await self._threads.run(self._put, key, body, {"IfNoneMatch": "*"})
            except BOTO_ERRORS as exc:
                status = status_of(exc) if isinstance(exc, ClientError) else 0
                if status == 412:
                    return PutResult.EXISTS
                if status != 409:
                    raise failure(f"PutObject {key} if absent", exc, write=True) from exc
                await asyncio.sleep(CONFLICT_BACKOFF.pause_s(conflicts))
            else:
                return PutResult.CREATED
        raise ServiceUnavailable(f"PutObject {key} if absent: 409 {CONFLICT_TRIES} times")

    async def get(self, key: str) -> bytes:
        """The object's bytes."""
        try:
            return await self._threads.run(self._get, key)
        except BOTO_ERRORS as exc:
            raise _missing_or(f"GetObject {key}", exc) from exc

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Some of the object's bytes (a GET with the header Range)."""
        if length <= 0:
            return b""
        try:
            return await self._threads.run(self._get, key, f"bytes={start}-{start + length - 1}")
        except BOTO_ERRORS as exc:
            if isinstance(exc, ClientError) and status_of(exc) == _NO_SUCH_RANGE:
                return b""
            raise _missing_or(f"GetObject {key}, bytes {start} to {start + length - 1}", exc) from exc

    async def head(self, key: str) -> ObjectInfo | None:
        """The object's size and age, or None where there is none."""
        try:
            answer = await self._threads.run(self._head, key)
        except BOTO_ERRORS as exc:
            error = _missing_or(f"HeadObject {key}", exc)
            if isinstance(error, ObjectMissing):
                return None
            raise error from exc
        return ObjectInfo(key, answer["ContentLength"], _ms(answer["LastModified"]))

    async def copy(self, source: str, target: str) -> None:
        """Server-side copy inside the bucket (objects up to 5 GB), replacing the target."""
        try:
            await self._threads.run(self._copy, source, target)
        except BOTO_ERRORS as exc:
            raise _missing_or(f"CopyObject {source} to {target}", exc) from exc

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects, a thousand a call; a key that does not exist is no error."""
        for start in range(0, len(keys), PAGE_KEYS):
            some = keys[start : start + PAGE_KEYS]
            try:
                faults = await self._threads.run(self._delete, some)
            except BOTO_ERRORS as exc:
                raise failure(f"DeleteObjects of {len(some)} keys", exc) from exc
            if faults:
                raise ServiceUnavailable(f"DeleteObjects: {len(faults)} of {len(some)} keys stayed, first: {faults[0]}")

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with `prefix` and sorts behind `start_after`, in key order."""
        left, token = limit, ""
        while left is None or left > 0:
            page_keys = PAGE_KEYS if left is None else min(left, PAGE_KEYS)
            try:
                infos, token = await self._threads.run(self._page, prefix, start_after, page_keys, token)
            except BOTO_ERRORS as exc:
                raise _missing_or(f"ListObjectsV2 {prefix}", exc) from exc
            for info in infos:
                yield info
            if not token:
                return
            if left is not None:
                left -= len(infos)

    async def close(self) -> None:
        """Let go of threads and connections."""
        self._threads.close()
        self._client.close()

    # --- calls that run in a thread

    def _put(self, key: str, body: bytes, condition: dict[str, Any]) -> None:
        self._timed(partial(self._client.put_object, **self._place, Key=key, Body=body, **condition))

    def _get(self, key: str, part: str = "") -> bytes:
        some: dict[str, Any] = {"Range": part} if part else {}
        answer = self._timed(partial(self._client.get_object, **self._place, Key=key, **some))
        with answer["Body"] as body:
            content: bytes = body.read()
            return content

    def _head(self, key: str) -> Mapping[str, Any]:
        return self._timed(partial(self._client.head_object, **self._place, Key=key))

    def _copy(self, source: str, target: str) -> None:
        place: CopySourceTypeDef = {"Bucket": self._bucket, "Key": source}
        owner: Any = {"ExpectedSourceBucketOwner": self._settings.bucket_owner} if self._settings.bucket_owner else {}
        self._timed(partial(self._client.copy_object, **self._place, **owner, Key=target, CopySource=place))

    def _delete(self, keys: Sequence[str]) -> Sequence[str]:
        what: DeleteTypeDef = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = self._timed(partial(self._client.delete_objects, **self._place, Delete=what))
        return [f"{fault.get('Key')} ({fault.get('Code')})" for fault in answer.get("Errors", [])]

    def _page(self, prefix: str, start_after: str, page_keys: int, token: str) -> tuple[Sequence[ObjectInfo], str]:
        where: dict[str, Any] = {"ContinuationToken": token} if token else {"StartAfter": start_after}
        if not where.get("StartAfter", "-"):
            where = {}
        call = partial(self._client.list_objects_v2, **self._place, Prefix=prefix, MaxKeys=page_keys, **where)
        answer = self._timed(call)
        infos = [ObjectInfo(o["Key"], o["Size"], _ms(o["LastModified"])) for o in answer.get("Contents", [])]
        return infos, answer.get("NextContinuationToken", "") if answer.get("IsTruncated") else ""

    def _timed(self, call: partial[Any]) -> Mapping[str, Any]:
        """The call's answer, its Date header compared with our clock."""
        sent_ms = self._clock.now_ms()
        try:
            answer: Mapping[str, Any] = call()
        except ClientError as exc:
            self._compare_clocks(sent_ms, exc.response)
            raise
        self._compare_clocks(sent_ms, answer)
        return answer

    def _compare_clocks(self, sent_ms: int, answer: Mapping[str, Any]) -> None:
        received_ms = self._clock.now_ms()
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date:
            self._skew_ms = skew_ms(sent_ms, received_ms, _ms(parsedate_to_datetime(date)))


def _new_client() -> "S3Client":
    session, config = new_session(), client_config(THREADS, ATTEMPTS)
    client = made(lambda: session.client("s3", config=config))
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    if not host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        by_path = config.merge(Config(s3={"addressing_style": "path"}))
        client = session.client("s3", config=by_path)
    return client


def _missing_or(what: str, exc: Exception) -> OutsideError:
    """Our name for a failed read."""
    if isinstance(exc, ClientError) and error_code(exc) in _GONE:
        return ObjectMissing(what)
    if isinstance(exc, ClientError) and status_of(exc) == 403 and error_code(exc) in _DENIED:
        return AccessDenied(f"{what}: S3 answers 403: {_PERMISSIONS}", f"403: {_PERMISSIONS}")
    return failure(what, exc)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
