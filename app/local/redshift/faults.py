"""Failures on demand (rule D4): the next failures of the warehouse, and their number.

Over HTTP on the control port: POST /faults {"kind": ..., "times": n, "statement": regular expression}, GET /faults (failures
still to come), DELETE /faults; GET /faults/struck (kind -> number of times), /faults/unreadable (URLs). Only programs of
this machine may send them (`app.local.callers`).
"""

import re
from collections import Counter
from enum import StrEnum
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from app.local.callers import refusal


class WarehouseFault(StrEnum):
    """The kinds of failures."""

    DISK_FULL = "disk_full"
    LOCK_TIMEOUT = "lock_timeout"
    SERIALIZATION = "serialization"
    INTERNAL = "internal"
    """S3 refuses the warehouse for a moment: an internal error that names no file."""
    REFUSE = "refuse"
    """A new connection is closed before the first answer."""
    DROP_MID_COPY = "drop_mid_copy"
    """The connection is lost after a part of a COPY's data reached the backend."""
    DROP_BEFORE_COMMIT = "drop_before_commit"
    """The connection is lost before COMMIT reaches the backend: nothing was committed."""
    DROP_AFTER_COMMIT = "drop_after_commit"
    """The connection is lost after the backend committed and before the client gets the answer."""
    UNREADABLE = "unreadable"
    """A file of a COPY cannot be read, from now until DELETE; `statement` must match its URL."""
    OLD_CLUSTER = "old_cluster"
    """The warehouse is a provisioned cluster without SYS views, from now until DELETE: only STL tables tell load errors."""


ERRORS: Final = {
    WarehouseFault.DISK_FULL: ("53100", "Disk Full", "The requested operation requires more disk space than available."),
    WarehouseFault.LOCK_TIMEOUT: (
        "57014",
        "Query cancelled on user's request",
        "statement timeout while waiting for a lock",
    ),
    WarehouseFault.SERIALIZATION: ("40001", "serialization failure on demand", ""),
    WarehouseFault.INTERNAL: ("XX000", "S3ServiceException:Please reduce your request rate.,Status 503,Error SlowDown", ""),
}
_LASTING: Final = frozenset({WarehouseFault.UNREADABLE, WarehouseFault.OLD_CLUSTER})
"""The kinds that stay until DELETE and strike no statement."""
_SYSTEM_TABLE: Final = re.compile(r"\b(?:stl|sys)_load_error\w*", re.IGNORECASE)
_DEFAULT_STATEMENT: Final = {
    WarehouseFault.DROP_MID_COPY: r"^\s*COPY\b",
    WarehouseFault.DROP_BEFORE_COMMIT: r"^\s*COMMIT\b",
    WarehouseFault.DROP_AFTER_COMMIT: r"^\s*COMMIT\b",
    WarehouseFault.UNREADABLE: r"/data/",
}


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """One failure to come."""

    kind: WarehouseFault
    times: int = 1
    statement: str = ""
    """Regular expression that the statement must match; default COMMIT for drops at COMMIT, else COPY; for UNREADABLE
    any data file."""

    instead: bool = False
    """First remove the failures that are still to come; unreadable files stay."""

    @property
    def pattern(self) -> re.Pattern[str]:
        """The pattern that the statement must match."""
        return re.compile(self.statement or _DEFAULT_STATEMENT.get(self.kind, r"^\s*COPY\b"), re.IGNORECASE)


class Faults:
    """The failures to come, oldest first."""

    def __init__(self) -> None:
        self._coming: list[Fault] = []
        self._unreadable: set[str] = set()
        self._struck: Counter[WarehouseFault] = Counter()

    def add(self, fault: Fault) -> None:
        """Make `fault` happen `fault.times` times."""
        if fault.instead:
            self._coming = [other for other in self._coming if other.kind in _LASTING]
        self._coming.append(fault)

    def take(self, statement: str, *kinds: WarehouseFault) -> Fault | None:
        """The failure, of these kinds (default all), that hits `statement` now; it is counted."""
        for fault in self._coming:
            if fault.kind in _LASTING or (fault.kind is WarehouseFault.REFUSE) != (WarehouseFault.REFUSE in kinds):
                continue
            if kinds and fault.kind not in kinds:
                continue
            if fault.kind is WarehouseFault.REFUSE or fault.pattern.search(statement):
                self._strike(fault)
                return fault
        return None

    def refusal(self, statement: str) -> tuple[str, str] | None:
        """SQLSTATE and message if a statement asks a system table that this kind of warehouse does not offer.

        Redshift Serverless, which this is unless OLD_CLUSTER says otherwise, lets nobody read STL tables.
        """
        table = _SYSTEM_TABLE.search(statement)
        if table is None:
            return None
        is_stl = table[0].lower().startswith("stl_")
        if any(fault.kind is WarehouseFault.OLD_CLUSTER for fault in self._coming):
            return None if is_stl else ("42P01", f'relation "{table[0].lower()}" does not exist')
        return ("42501", f"permission denied for relation {table[0].lower()}") if is_stl else None

    def is_unreadable(self, url: str) -> bool:
        """Whether a file (s3:// URL) cannot be read; a file that a failure to come matches stays unreadable."""
        if url not in self._unreadable:
            fault = next((f for f in self._coming if f.kind is WarehouseFault.UNREADABLE and f.pattern.search(url)), None)
            if fault is None:
                return False
            self._unreadable.add(url)
            self._strike(fault)
        return True

    def _strike(self, fault: Fault) -> None:
        self._struck[fault.kind] += 1
        fault.times -= 1
        if fault.times <= 0:
            self._coming.remove(fault)

    def application(self) -> web.Application:
        """The HTTP control."""
        app = web.Application(middlewares=[_only_programs])
        app.add_routes([
            web.post("/faults", self._post), web.get("/faults", self._get), web.delete("/faults", self._delete),
            web.get("/faults/struck", self._get_struck), web.get("/faults/unreadable", self._get_unreadable),
        ])  # fmt: skip
        return app

    async def _post(self, request: web.Request) -> web.Response:
        try:
            fault = msgspec.json.decode(await request.read(), type=Fault)
            _ = fault.pattern
        except (msgspec.DecodeError, re.error) as exc:
            return web.json_response({"error": str(exc)}, status=400)
        self.add(fault)
        return web.json_response({"faults": len(self._coming)})

    async def _get(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._coming), content_type="application/json")

    async def _get_struck(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._struck), content_type="application/json")

    async def _get_unreadable(self, _: web.Request) -> web.Response:
        return web.json_response(sorted(self._unreadable))

    async def _delete(self, _: web.Request) -> web.Response:
        self._coming.clear()
        self._unreadable.clear()
        return web.json_response({"faults": 0})


@web.middleware
async def _only_programs(request: web.Request, handler: Handler) -> web.StreamResponse:
    if why := refusal(request.headers):
        return web.json_response({"error": why}, status=403)
    return await handler(request)
