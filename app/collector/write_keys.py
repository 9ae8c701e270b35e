"""The write keys: those of INSTREAM_WRITE_KEYS, and those of a file that is read again and again.

Keys rotate without a restart and without a gap: add the new key to the file, let clients change to it, remove the old one.
"""

import asyncio
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from app.collector.metrics import WRITE_KEYS, WRITE_KEYS_FAULT
from app.core.events.fields import KeyKind
from app.errors import ConfigurationError, RequestRejected
from app.setting_types import parse_write_keys
from app.settings import Settings

log = structlog.get_logger(__name__)

READ_INTERVAL_S: Final = 2.0
MOST_BYTES: Final = 1024 * 1024
KEY_HEADER: Final = "X-Write-Key"


class WriteKeys:
    """The keys that are known now."""

    def __init__(self, settings: Settings) -> None:
        """Read the file for the first time.

        Raises:
            ConfigurationError: the file does not fit, or there is no key at all.
        """
        self._own: Mapping[str, KeyKind] = settings.write_keys
        self._path = settings.write_keys_file
        self._fault: str | None = None
        self._keys = self._all({} if self._path is None else _read(self._path))
        WRITE_KEYS.set(len(self._keys))

    def find(self, shown: str) -> tuple[str, KeyKind]:
        """The known key that a client shows, and its kind; each known key is compared, in constant time.

        Raises:
            RequestRejected: 401, none or an unknown one.
        """
        found: tuple[str, KeyKind] | None = None
        shown_bytes = shown.encode(errors="surrogatepass")
        for key, kind in self._keys.items():
            if hmac.compare_digest(key.encode(), shown_bytes):
                found = key, kind
        if found is None:
            fault = "the write key is not one of ours" if shown else "the request has no write key"
            raise RequestRejected(401, "unauthorized", f"{fault}; give a write key in {KEY_HEADER} or ?key=")
        return found

    async def watch(self) -> None:
        """Read the file again and again. While it does not fit, the keys that were read last stay in force."""
        while self._path is not None:
            await asyncio.sleep(READ_INTERVAL_S)
            await self.read_again()

    async def read_again(self) -> None:
        """Take the file's keys as they are now."""
        if self._path is None:
            return
        try:
            keys = self._all(await asyncio.to_thread(_read, self._path))
        except ConfigurationError as exc:
            WRITE_KEYS_FAULT.set(1)
            if self._fault != str(exc):
                log.error("the write keys stay as they were", error=str(exc))
            self._fault = str(exc)
            return
        WRITE_KEYS_FAULT.set(0)
        self._fault = None
        if keys != self._keys:
            added, removed = len(keys.keys() - self._keys.keys()), len(self._keys.keys() - keys.keys())
            log.info("write keys changed", added=added, removed=removed, keys=len(keys))
            self._keys = keys
            WRITE_KEYS.set(len(keys))

    def _all(self, from_file: Mapping[str, KeyKind]) -> Mapping[str, KeyKind]:
        keys = {**self._own, **from_file}
        if not keys:
            raise ConfigurationError(
                "INSTREAM_WRITE_KEYS and INSTREAM_WRITE_KEYS_FILE name no key: no client could post; "
                "set e.g. demo:browser,demo-server:server"
            )
        return keys


def _read(path: Path) -> Mapping[str, KeyKind]:
    """The keys of a file: `key:browser` or `key:server` a line, `#` for comments.

    Raises:
        ConfigurationError: it cannot be read or does not fit; the text shows no key.
    """
    where = f"INSTREAM_WRITE_KEYS_FILE={path}"
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ConfigurationError(f"{where}: longer than {MOST_BYTES} bytes")
        lines = [line.strip() for line in content.decode().splitlines()]
    except OSError as exc:
        raise ConfigurationError(f"{where}: {exc.strerror or exc}; give a file that can be read") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{where}: not UTF-8") from exc
    try:
        return parse_write_keys([line for line in lines if line and not line.startswith("#")])
    except ValueError as exc:
        raise ConfigurationError(f"{where}: {exc}") from None  # the entries are secrets
