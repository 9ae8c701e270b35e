"""What compresses the files of each format, and opens them again.

The bytes of gzip and deflate may differ between kinds of processors, because their library uses special instructions;
unpacked they are the same.
"""

import bz2
import gzip
from collections.abc import Callable, Mapping
from typing import Final

import zstandard
from isal import igzip, isal_zlib

from app.core.formats.flows import Format
from app.core.whole_table import whole_table

_ZSTD_LEVEL: Final = 1
"""Half the time of level 3, and no larger: rows repeat what the rows before them had."""
_GZIP_LEVEL: Final = 1
"""The level of ISA-L: 2% larger than zlib's level 6, in a tenth of the time."""
_DEFLATE_LEVEL: Final = 1
"""The level of ISA-L: on our rows no larger than zlib's level 6, in a sixth of the time."""
_RAW_DEFLATE: Final = -15

Buffer = bytes | memoryview


def zstd(text: Buffer) -> bytes:
    """One zstd frame, with its length."""
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(text)


def unzstd(body: Buffer) -> bytes:
    """The text of one zstd frame.

    Raises:
        EOFError: the frame is cut off.
        zstandard.ZstdError: it is none.
    """
    reader = zstandard.ZstdDecompressor().decompressobj()
    text = reader.decompress(body)
    if not reader.eof:
        raise EOFError("the frame is cut off")
    return text


def gzipped(text: Buffer) -> bytes:
    """A gzip file without a time."""
    return igzip.compress(text, _GZIP_LEVEL, mtime=0)


def bzip2(text: Buffer) -> bytes:
    """A bzip2 file."""
    return bz2.compress(text)


def deflate(block: Buffer) -> bytes:
    """A deflate stream, as a block of an Avro file has it."""
    return isal_zlib.compress(block, _DEFLATE_LEVEL, _RAW_DEFLATE)


def null(block: Buffer) -> Buffer:
    """The bytes as they are: Avro's codec `null`."""
    return block


TSV_CODECS: Final[Mapping[Format, Callable[[Buffer], bytes] | None]] = whole_table(Format, {
    Format.TSV_ZSTD: zstd, Format.TSV_GZIP: gzipped, Format.TSV_BZIP2: bzip2,
    Format.AVRO_DEFLATE: None, Format.AVRO_NULL: None,
})  # fmt: skip
"""What compresses a text file; None for Avro."""
DECOMPRESS: Final[Mapping[Format, Callable[[bytes], bytes] | None]] = whole_table(Format, {
    Format.TSV_ZSTD: unzstd, Format.TSV_GZIP: gzip.decompress, Format.TSV_BZIP2: bz2.decompress,
    Format.AVRO_DEFLATE: None, Format.AVRO_NULL: None,
})  # fmt: skip
"""What opens a text file; None for Avro, whose files carry their own codec."""
AVRO_CODECS: Final[Mapping[Format, tuple[str, Callable[[Buffer], Buffer]]]] = {
    Format.AVRO_DEFLATE: ("deflate", deflate), Format.AVRO_NULL: ("null", null),
}  # fmt: skip
"""Name and codec of the blocks of an Avro file."""
