"""Credentials without s3:ListBucket: S3 answers 403 for a key that is missing, and the error says what to allow."""

from collections.abc import AsyncIterator, Iterator
from http.server import ThreadingHTTPServer

import pytest

from app.adapters.s3 import S3ObjectStore
from app.errors import AccessDenied, ServiceUnavailable
from app.settings import Settings
from tests.worlds.http_server import Answering, serving

DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
SKEWED = b"<?xml version='1.0'?><Error><Code>RequestTimeTooSkewed</Code><Message>clock</Message></Error>"


class Refusing(Answering):
    """S3 for a caller that may do nothing."""

    def _refuse(self) -> None:
        self.answer(403, self.server.body)  # type: ignore[attr-defined]

    do_GET = do_HEAD = do_PUT = do_POST = _refuse


@pytest.fixture
def refusing() -> Iterator[ThreadingHTTPServer]:
    with serving(Refusing, body=DENIED) as server:
        yield server


@pytest.fixture
async def store(
    aws_settings: Settings, refusing: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[S3ObjectStore]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{refusing.server_port}")
    store = S3ObjectStore(aws_settings)
    yield store
    await store.close()


async def test_a_refused_read_names_the_permissions(store: S3ObjectStore) -> None:
    for call in (store.get("k"), store.head("k"), store.copy("k", "l"), anext(store.list("p/"))):
        with pytest.raises(AccessDenied, match=r"s3:GetObject .* s3:ListBucket") as caught:
            await call
        assert not caught.value.retriable


async def test_a_refusal_that_may_be_over_soon_is_another(store: S3ObjectStore, refusing: ThreadingHTTPServer) -> None:
    refusing.body = SKEWED  # type: ignore[attr-defined]
    with pytest.raises(ServiceUnavailable, match="RequestTimeTooSkewed"):
        await store.get("k")
