"""The input of a COPY, for the warehouse in memory: the manifest and the files that it names, as real bytes."""

from typing import Any, Final

import msgspec
import zstandard

from app.adapters.ports import ObjectStore
from app.adapters.warehouse_port import LoadError
from app.core.formats.decoding import read
from app.core.formats.flows import BY_NAME, ColumnKind
from app.core.formats.read_files import decode_output
from app.errors import FormatInvalid, ObjectMissing, ServiceUnavailable, WarehouseError

CopiedRow = dict[str, Any]

_INTERNAL: Final = "XX000"
_TOO_LONG: Final = 1204
_UNREADABLE: Final = 1214
_UTF8_MOST: Final = 4
"""Most bytes of one character."""


class _CopyMeta(msgspec.Struct):
    content_length: int | None = None


class _CopyEntry(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    mandatory: bool = False
    meta: _CopyMeta | None = None


class _Manifest(msgspec.Struct):
    entries: list[_CopyEntry]


_manifest_decoder: Final = msgspec.json.Decoder(_Manifest)


class FileRefused(WarehouseError):
    """A file's content is to blame, and the load-error table says so."""

    def __init__(self, output: str, error: LoadError) -> None:
        where = "Check 'sys_load_error_detail' system table for details."
        super().__init__(_INTERNAL, f"Load into table '{output}' failed.  {where}")
        self.error = error


class CopiedFiles:
    """Reads files of one bucket; decoded files are kept, because a search for bad files copies the same ones again."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._decoded: dict[tuple[str, int, bytes], tuple[CopiedRow, ...] | LoadError | WarehouseError] = {}

    async def rows(self, output: str, version: int, manifest_url: str) -> list[CopiedRow]:
        """The rows of every file in a manifest, in its order; their columns are of a version.

        Raises:
            FileRefused: a file's content does not fit its table.
            WarehouseError: S3 did not give a file, or one that cannot be decompressed or has another length.
        """
        body = await self._read(manifest_url, None, mandatory=True)
        try:
            entries = read(_manifest_decoder, body or b"", manifest_url).entries
        except FormatInvalid as exc:
            raise WarehouseError(_INTERNAL, f"Manifest file is not in correct json format: {exc}") from exc
        rows: list[CopiedRow] = []
        for entry in entries:
            length = entry.meta.content_length if entry.meta else None
            if (file := await self._read(entry.url, length, mandatory=entry.mandatory)) is not None:
                rows += self._decode(output, version, file, entry.url)
        return rows

    async def _read(self, url: str, length: int | None, *, mandatory: bool) -> bytes | None:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        try:
            if bucket != self._store.bucket:
                raise ObjectMissing(f"bucket {bucket}")
            body = await self._store.get(key)
        except ObjectMissing as exc:
            if not mandatory:
                return None
            raise WarehouseError(_INTERNAL, f"S3ServiceException: {exc},Status 404, file {url}") from exc
        except ServiceUnavailable as exc:
            raise WarehouseError(_INTERNAL, f"S3ServiceException: {exc},Status 503, file {url}") from exc
        if length is not None and len(body) != length:
            raise WarehouseError(_INTERNAL, f"File size mismatch: {url} has {len(body)} bytes, the manifest says {length}")
        return body

    def _decode(self, output: str, version: int, body: bytes, url: str) -> tuple[CopiedRow, ...]:
        if (output, version, body) not in self._decoded:
            self._decoded[output, version, body] = _decoded(output, version, body)
        found = self._decoded[output, version, body]
        if isinstance(found, LoadError):
            raise FileRefused(output, found._replace(filename=url))
        if isinstance(found, WarehouseError):
            raise WarehouseError(found.sqlstate, f"{found.message} file {url}")
        return found


def _decoded(output: str, version: int, body: bytes) -> tuple[CopiedRow, ...] | LoadError | WarehouseError:
    """The rows, or the warehouse's error for the file."""
    text = BY_NAME[output].format.value.startswith("tsv")
    if text and not body:
        return ()
    try:
        frame = decode_output(output, body, version)
    except FormatInvalid as exc:
        if text and isinstance(exc.__cause__, zstandard.ZstdError | OSError | EOFError):
            return WarehouseError(_INTERNAL, f"Failed to decompress: {exc}")
        return LoadError("", 0, "", _UNREADABLE, str(exc), "")
    rows = tuple(frame.iter_rows(named=True))
    return _too_long(output, rows) or rows


def _too_long(output: str, rows: tuple[CopiedRow, ...]) -> LoadError | None:
    """The first text that is longer than the table takes."""
    bounds = [(column.name, column.max_bytes) for column in BY_NAME[output].columns if column.kind is ColumnKind.STRING]
    for line, row in enumerate(rows, 1):
        for name, most in bounds:
            text = row[name]
            if text is not None and len(text) * _UTF8_MOST > most and len(text.encode()) > most:
                return LoadError("", line, name, _TOO_LONG, "String length exceeds DDL length", "")
    return None
