"""A real server that asks for a password: a wrong one is refused, and no message shows it."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest

from app.adapters.loaded_ledger import WarehouseLedger
from app.adapters.warehouse import connect, open_session, to_warehouse
from app.adapters.warehouse_login import login_of
from app.errors import ConfigurationError, ServiceUnavailable
from app.settings import Settings
from tests.e2e.live_stack import eventually
from tests.worlds.warehouse import Warehouse

RIGHT = "Zp5right/@%"
ENCODED = "Zp5right%2F%40%25"
WRONG = "Xq7wrong"
RULE = "host all guarded 127.0.0.1/32 scram-sha-256\n"


@pytest.fixture
def guarded(warehouse: Warehouse) -> Iterator[str]:
    """The warehouse's address behind the `@`, for a user `guarded` with a password."""
    address = warehouse.settings.warehouse_url.partition("@")[2]
    with psycopg.connect(warehouse.settings.warehouse_url, autocommit=True) as server:
        found = server.execute("SHOW hba_file").fetchone()
        assert found is not None
        rules = Path(found[0])
        before = rules.read_text()
        server.execute("CREATE ROLE guarded SUPERUSER LOGIN")
        server.execute(f"ALTER ROLE guarded PASSWORD '{RIGHT}'".encode())
        rules.write_text(RULE + before)
        server.execute("SELECT pg_reload_conf()")
        try:  # the server reads its rules when it gets to it
            eventually(lambda: not is_let_in(f"postgresql://guarded:{WRONG}@{address}"))
            yield address
        finally:
            rules.write_text(before)
            server.execute("SELECT pg_reload_conf()")
            server.execute("DROP ROLE guarded")


def is_let_in(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


async def test_a_password_with_every_special_character_opens_a_session(guarded: str) -> None:
    session = await open_session(f"postgresql://guarded:{ENCODED}@{guarded}")
    assert await session.log_status("none") is None
    await session.close()
    async with await connect(f"postgresql://guarded@{guarded}?password={ENCODED}") as connection:
        assert await (await connection.execute("SELECT current_user")).fetchone() == ("guarded",)


@pytest.mark.parametrize("form", ["postgresql://guarded:{}@{}", "postgresql://guarded:{}%40{}@{}"])
async def test_a_wrong_password_is_told_as_that_and_not_shown(guarded: str, form: str) -> None:
    url = form.format(*[WRONG] * (form.count("{}") - 1), guarded)
    uses: list[Any] = [connect, open_session, lambda it: WarehouseLedger(it).delivery(1)]
    for use in uses:
        with pytest.raises(ServiceUnavailable, match='password authentication failed for user "guarded"') as caught:
            await use(url)
        said = "".join(traceback.format_exception(caught.value))
        assert f"the warehouse at postgresql://guarded:***@{guarded} does not answer" in said
        assert WRONG not in said + repr(caught.value) + repr(caught.value.__cause__)


async def test_a_command_with_a_wrong_password_fails_in_one_line(guarded: str, tmp_path: Path) -> None:
    url = f"postgresql://guarded:{WRONG}@{guarded}"
    done = await asyncio.to_thread(
        subprocess.run,
        [Path(sys.executable).with_name("instream"), "delivery", "quarantined"],
        env=os.environ | {"INSTREAM_HOME": str(tmp_path), "INSTREAM_WAREHOUSE_URL": url},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert 'password authentication failed for user "guarded"' in done.stderr
    assert done.stderr.count("\n") == 1
    assert WRONG not in done.stdout + done.stderr


class Iam(BaseHTTPRequestHandler):
    """AWS in the place of which it answers: the credentials of user `guarded`, for whom asks as the settings say."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(body)
        if "Action=GetClusterCredentials" in body:
            answer = (
                "<GetClusterCredentialsResponse><GetClusterCredentialsResult><DbUser>guarded</DbUser>"
                f"<DbPassword>{RIGHT}</DbPassword></GetClusterCredentialsResult></GetClusterCredentialsResponse>"
            )
        else:
            answer = json.dumps({"dbUser": "guarded", "dbPassword": RIGHT})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def iam(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The bodies of the requests that AWS got."""
    Iam.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Iam)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield Iam.asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("user", "setting", "asked"),
    [
        ("guarded@", "warehouse_cluster", "DbUser=guarded"), ("", "warehouse_workgroup", '"workgroupName": "house"'),
    ],
)  # fmt: skip
async def test_iam_gives_the_password_where_the_url_has_none(
    guarded: str, iam: list[str], user: str, setting: str, asked: str
) -> None:
    settings = Settings(warehouse_url=f"postgresql://{user}{guarded}", **{setting: "house"})
    session = await to_warehouse(settings)()
    assert await session.log_status("none") is None
    await session.close()
    ledger = WarehouseLedger(settings.warehouse_url, login_of(settings))
    assert (await ledger.delivery(1)).quarantined == []
    await ledger.close()
    assert len(iam) == 2, "each connection asks for its own"
    assert all(asked in body and guarded.rpartition("/")[2] in body for body in iam)


@pytest.mark.parametrize(("url", "missing"), [("postgresql://guarded@h", "database"), ("postgresql://h/db", "user")])
def test_credentials_are_asked_for_a_user_and_a_database(url: str, missing: str) -> None:
    with pytest.raises(ConfigurationError, match=f"names no {missing}"):
        login_of(Settings(warehouse_url=url, warehouse_cluster="house"))


def test_a_warehouse_is_a_cluster_or_a_workgroup() -> None:
    with pytest.raises(ConfigurationError, match="unset one of them"):
        Settings(warehouse_cluster="one", warehouse_workgroup="two")
