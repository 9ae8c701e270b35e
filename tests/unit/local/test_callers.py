"""The stand-ins serve programs of this machine, and no web page that a browser here shows."""

import http.client
import threading
from collections.abc import Iterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from app.clock import SystemClock
from app.local.callers import refusal
from app.local.redshift.faults import Faults, WarehouseFault
from app.local.services import aws
from app.local.services.aws_faults import FAULTS_PATH
from app.local.stack.aws_state import BUCKETS_PATH, is_gone
from app.local.stack.life import Home
from app.local.stack.supervisor import Supervisor

OF_PAGES = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "none"},
]
"""Headers of requests that a browser sends for a page; no program sends them."""


@pytest.mark.parametrize("headers", OF_PAGES, ids=str)
def test_a_web_page_is_refused(headers):
    assert "web page" in refusal({"Host": "127.0.0.1:80"} | headers)
    assert "web page" in refusal({"Host": "aws:5000"} | headers, any_host=True)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:4566", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:9", "[::1]", "127.8.0.1"]
)
def test_a_program_that_calls_this_machine_is_served(host):
    assert refusal({"Host": host}) is None


@pytest.mark.parametrize(
    "host", ["evil.example:4566", "127.0.0.1.evil.example", "", "10.0.0.1", "localhost.evil.example:80"]
)
def test_a_name_that_leads_here_is_refused_unless_every_host_is_served(host):
    assert "call 127.0.0.1" in refusal({"Host": host})
    assert refusal({"Host": host}, any_host=True) is None


@pytest.fixture(scope="module")
def aws_port() -> Iterator[int]:
    server = aws.new_server("127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()


def status(port: int, method: str, path: str, headers: dict[str, str] | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request(method, path, headers=headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("headers", [*OF_PAGES, {"Host": "evil.example"}], ids=str)
def test_a_page_can_neither_reset_nor_disturb_the_aws_stand_in(aws_port, headers):
    assert status(aws_port, "PUT", "/kept") == 200
    for method, path in (("POST", "/moto-api/reset"), ("POST", FAULTS_PATH), ("DELETE", FAULTS_PATH)):
        assert status(aws_port, method, path, headers) == 403
    assert status(aws_port, "HEAD", "/kept") == 200


@pytest.mark.parametrize("headers", OF_PAGES, ids=str)
def test_a_page_can_store_nothing_in_the_aws_stand_in(aws_port, headers):
    assert status(aws_port, "PUT", "/of-a-page", headers) == 403
    assert status(aws_port, "HEAD", "/of-a-page") == 404


async def test_that_the_aws_stand_in_was_reset_is_seen_and_ends_the_life(aws_port, unused_tcp_port, tmp_path):
    assert status(aws_port, "PUT", "/instream") == 200
    assert status(aws_port, "GET", BUCKETS_PATH) == 200
    endpoint = f"http://127.0.0.1:{aws_port}"
    assert not await is_gone(endpoint, "instream")
    assert status(aws_port, "POST", "/moto-api/reset") == 200
    assert await is_gone(endpoint, "instream")
    supervisor = Supervisor(Home(tmp_path), {}, SystemClock())
    supervisor._variables = {"AWS_ENDPOINT_URL": endpoint}
    await supervisor._watch_aws("instream")
    assert supervisor._life.failure == "the AWS stand-in was reset: its bucket instream is gone; `instream up` begins anew"
    assert supervisor._end.is_set()
    assert not await is_gone(f"http://127.0.0.1:{unused_tcp_port}", "instream"), "no answer says nothing"


@pytest.mark.parametrize("headers", [*OF_PAGES, {"Host": "evil.example"}], ids=str)
async def test_a_page_can_order_no_failure_of_the_warehouse(headers):
    faults = Faults()
    async with TestClient(TestServer(faults.application())) as client:
        order = {"kind": WarehouseFault.DISK_FULL, "times": 1}
        assert (await client.post("/faults", json=order, headers=headers)).status == 403
        assert await (await client.get("/faults")).json() == []
        assert (await client.post("/faults", json=order)).status == 200
