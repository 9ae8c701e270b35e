"""The S3 input of a COPY: its manifest, and the objects in it, decompressed piece by piece.

Everything here blocks and runs in threads.
"""

import bz2
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import boto3
import msgspec
import zstandard
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.core.formats.decoding import read
from app.errors import FormatInvalid
from app.local.redshift import wire

_CHUNK_BYTES: Final = 1 << 20
_ENTRY_KEYS: Final = frozenset({"url", "mandatory", "meta"})


class LoadFailed(Exception):
    """A COPY failed: the error for the client, and the entry for the load errors if a file's content is to blame."""

    def __init__(self, fields: wire.Fields, load_error: "FileRejected | None" = None) -> None:
        super().__init__(fields["M"])
        self.fields = fields
        self.load_error = load_error


class FileRejected(msgspec.Struct, kw_only=True):
    """One row of the load errors."""

    filename: str
    err_reason: str
    err_code: int = 1200
    line_number: int = 0
    colname: str = ""
    type: str = ""
    col_length: str = ""
    raw_line: str = ""
    raw_field_value: str = ""


class ManifestMeta(msgspec.Struct):
    """A manifest's entry for a file."""

    content_length: int | None = None


class ManifestEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One file of a manifest; it may be missing unless it is mandatory."""

    url: str
    mandatory: bool = False
    meta: ManifestMeta | None = None


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """A COPY manifest."""

    entries: list[ManifestEntry]


_manifest_decoder: Final = msgspec.json.Decoder(Manifest)


class S3Place(NamedTuple):
    """An object's bucket and key."""

    bucket: str
    key: str


def place_of(url: str) -> S3Place:
    """The object that an s3:// URL names."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return S3Place(bucket, key)


def _s3_failure(url: str, text: str) -> LoadFailed:
    return LoadFailed(
        wire.error_of("XX000", f"S3ServiceException: {text}", f"error: S3ServiceException: {text}, file {url}")
    )


class S3Files:
    """Reads objects for COPY."""

    def __init__(self, is_unreadable: Callable[[str], bool] = lambda _: False) -> None:
        """Read from AWS_ENDPOINT_URL. A file (s3:// URL) for which `is_unreadable` is true cannot be read."""
        self.is_unreadable = is_unreadable
        config = Config(
            s3={"addressing_style": "path"}, retries={"max_attempts": 2, "mode": "standard"}, max_pool_connections=32
        )
        self._client: Any = boto3.client("s3", config=config)

    def manifest(self, url: str) -> list[ManifestEntry]:
        """The entries of the manifest at `url`.

        Raises:
            LoadFailed: the object is missing or no manifest.
        """
        body = b"".join(self._read(url, None) or ())
        try:
            return read(_manifest_decoder, body, url).entries
        except FormatInvalid as exc:
            raise LoadFailed(wire.error_of("XX000", f"Manifest file is not in correct json format: {exc}")) from exc

    def pieces(self, entry: ManifestEntry, compression: str | None) -> Iterator[bytes] | None:
        """The decompressed content of a file, or None if an optional file is missing.

        Raises:
            LoadFailed: a mandatory file is missing, or the manifest has another length.
        """
        length = entry.meta.content_length if entry.meta else None
        pieces = self._read(entry.url, length, optional=not entry.mandatory)
        if pieces is None or compression is None:
            return pieces
        return decompress(pieces, compression, entry.url)

    def _read(self, url: str, length: int | None, *, optional: bool = False) -> Iterator[bytes] | None:
        place = place_of(url)
        try:
            answer = self._client.get_object(Bucket=place.bucket, Key=place.key)
        except ClientError as exc:
            status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 404 and optional:
                return None
            raise _s3_failure(url, f"{exc.response.get('Error', {}).get('Message', exc)},Status {status}") from exc
        except BotoCoreError as exc:
            raise _s3_failure(url, str(exc)) from exc
        found = answer["ContentLength"]
        if length is not None and found != length:
            answer["Body"].close()
            raise LoadFailed(
                wire.error_of("XX000", f"File size mismatch: {url} has {found} bytes, the manifest says {length}")
            )
        return self._chunks(url, answer["Body"])

    @staticmethod
    def _chunks(url: str, body: Any) -> Iterator[bytes]:
        try:
            yield from body.iter_chunks(_CHUNK_BYTES)
        except BotoCoreError as exc:
            raise _s3_failure(url, str(exc)) from exc
        finally:
            body.close()


_DECODERS: Final[dict[str, Callable[[], Any]]] = {
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "bzip2": bz2.BZ2Decompressor,
}


def decompress(pieces: Iterator[bytes], compression: str, url: str) -> Iterator[bytes]:
    """The content of one or more compressed members, one behind the other.

    Raises:
        LoadFailed: the bytes are no such file, or end in the middle of a member.
    """
    new_decoder = _DECODERS[compression]
    decoder, inside = new_decoder(), False
    try:
        for piece in pieces:
            data = piece
            while data:
                inside = True
                out = decoder.decompress(data)
                if out:
                    yield out
                data = b""
                if decoder.eof:
                    data = decoder.unused_data
                    decoder, inside = new_decoder(), False
    except (zstandard.ZstdError, zlib.error, OSError, EOFError, ValueError) as exc:
        raise _corrupt(url, str(exc)) from exc
    if inside:
        raise _corrupt(url, "unexpected end of file")


def _corrupt(url: str, reason: str) -> LoadFailed:
    return LoadFailed(wire.error_of("XX000", f"Failed to decompress {url}: {reason}"))


def whole(pieces: Iterator[bytes]) -> io.BytesIO:
    """All pieces, for formats that are read from a file object."""
    return io.BytesIO(b"".join(pieces))
