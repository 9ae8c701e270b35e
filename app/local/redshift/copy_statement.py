"""Redshift's COPY from S3: its grammar, the options that the stand-in knows, and the refusal of all others (rule D4).

Source: Amazon Redshift Database Developer Guide, "COPY". An option that is not handled is a syntax error: if it were
overlooked, data would be read here in another way than in production.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import msgspec

from app.local.redshift.sql_tokens import Token, quote, starts_with

DEFAULT_NULL: Final = "\\N"
"""A field of this text is NULL unless NULL AS says otherwise."""
TIME_FORMATS: Final = frozenset({"auto", "epochsecs", "epochmillisecs"})
COMPRESSIONS: Final = {"GZIP": "gzip", "BZIP2": "bzip2", "ZSTD": "zstd"}


class CopyRefused(Exception):
    """A COPY that the stand-in does not execute; the text says which part."""


class CopyStatement(msgspec.Struct, kw_only=True):
    """One COPY as written."""

    table: tuple[str, ...]
    """Name, or schema and name."""
    columns: tuple[str, ...] = ()
    """Empty: all of the table's."""
    source: str = ""
    iam_role: str | None = None
    format: str | None = None
    """csv or avro."""
    delimiter: str = ","
    quote: str = '"'
    avro_match: str = "auto"
    compression: str | None = None
    manifest: bool = False
    null_as: str = DEFAULT_NULL
    empty_as_null: bool = False
    blanks_as_null: bool = False
    time_format: str = "auto"
    region: str | None = None

    @property
    def target(self) -> str:
        """The table as SQL."""
        return ".".join(quote(part) for part in self.table)


def is_copy_from_s3(tokens: list[Token]) -> bool:
    """Whether a statement is a COPY that PostgreSQL cannot execute; COPY ... FROM STDIN is none."""
    if not starts_with(tokens, "COPY"):
        return False
    for token, following in pairwise(tokens):
        if token.upper == "FROM":
            return following.upper != "STDIN"
    return False


def unescape(text: str) -> str:
    r"""The text that a COPY string option stands for: \t, \N as itself, octal \ddd, and \0 for U+0000."""
    if text == "\\t":
        return "\t"
    if text.startswith("\\") and 2 <= len(text) <= 4 and all(c in "01234567" for c in text[1:]):
        return chr(int(text[1:], 8))
    return text


class _Cursor:
    """Walks the tokens of one statement."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._tokens)

    def next(self, expected: str) -> Token:
        if not self.left:
            raise CopyRefused(f"syntax error at end of COPY, expected {expected}")
        self._at += 1
        return self._tokens[self._at - 1]

    def accept(self, word: str) -> bool:
        if self.left and self._tokens[self._at].upper == word:
            self._at += 1
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise CopyRefused(f"syntax error in COPY, expected {word} before {self.next(word).text!r}")

    def name(self) -> str:
        token = self.next("a name")
        if token.kind not in {"word", "quoted"}:
            raise CopyRefused(f"syntax error at or near {token.text!r}, expected a name")
        return token.value

    def string(self) -> str:
        self.accept("AS")
        token = self.next("a string")
        if token.kind != "string":
            raise CopyRefused(f"syntax error at or near {token.text!r}, expected a string (bind parameters are refused)")
        return token.value

    def one_of(self, *words: str) -> str:
        token = self.next(" or ".join(words))
        if token.upper not in words:
            raise CopyRefused(f"syntax error at or near {token.text!r}, expected {' or '.join(words)}")
        return token.upper


def _one_character(name: str, text: str) -> str:
    if len(text.encode(errors="replace")) != 1 or text in "\r\n":
        raise CopyRefused(f"COPY {name} must be a single character, and no line break")
    return text


def _set_csv(copy: CopyStatement, cursor: _Cursor) -> None:
    copy.format = "csv"
    if cursor.accept("QUOTE"):
        copy.quote = _one_character("quote", cursor.string())


def _set_avro(copy: CopyStatement, cursor: _Cursor) -> None:
    copy.format = "avro"
    copy.avro_match = cursor.string()
    if copy.avro_match not in {"auto", "auto ignorecase"}:
        raise CopyRefused(f"AVRO {copy.avro_match!r} is not supported: 'auto' or 'auto ignorecase'")


def _set_format(copy: CopyStatement, cursor: _Cursor) -> None:
    cursor.accept("AS")
    {"CSV": _set_csv, "AVRO": _set_avro}[cursor.one_of("CSV", "AVRO")](copy, cursor)


def _set_delimiter(copy: CopyStatement, cursor: _Cursor) -> None:
    copy.delimiter = _one_character("delimiter", unescape(cursor.string()))


def _set_null(copy: CopyStatement, cursor: _Cursor) -> None:
    cursor.expect("AS")
    copy.null_as = unescape(cursor.string())


def _set_time_format(copy: CopyStatement, cursor: _Cursor) -> None:
    copy.time_format = cursor.string()
    if copy.time_format not in TIME_FORMATS:
        raise CopyRefused(f"TIMEFORMAT {copy.time_format!r} is not supported: {', '.join(sorted(TIME_FORMATS))}")


def _set_iam_role(copy: CopyStatement, cursor: _Cursor) -> None:
    copy.iam_role = "default" if cursor.accept("DEFAULT") else cursor.string()


def _set_max_error(_: CopyStatement, cursor: _Cursor) -> None:
    cursor.accept("AS")
    if cursor.next("a number").text != "0":
        raise CopyRefused("MAXERROR other than 0 is not supported")


def _set_region(copy: CopyStatement, cursor: _Cursor) -> None:
    copy.region = cursor.string()


def _skip_switch(_: CopyStatement, cursor: _Cursor) -> None:
    cursor.one_of("ON", "OFF", "TRUE", "FALSE", "PRESET")


def _flag(name: str) -> Callable[[CopyStatement, _Cursor], None]:
    return lambda copy, _: setattr(copy, name, True)


def _compression(name: str) -> Callable[[CopyStatement, _Cursor], None]:
    return lambda copy, _: setattr(copy, "compression", name)


_OPTIONS: Final[dict[str, Callable[[CopyStatement, _Cursor], None]]] = {
    "IAM_ROLE": _set_iam_role, "FORMAT": _set_format, "CSV": _set_csv, "AVRO": _set_avro, "DELIMITER": _set_delimiter,
    "MANIFEST": _flag("manifest"), "EMPTYASNULL": _flag("empty_as_null"), "BLANKSASNULL": _flag("blanks_as_null"),
    "NULL": _set_null, "TIMEFORMAT": _set_time_format, "MAXERROR": _set_max_error, "STATUPDATE": _skip_switch,
    "COMPUPDATE": _skip_switch, "REGION": _set_region,
    **{word: _compression(name) for word, name in COMPRESSIONS.items()},
}  # fmt: skip


def parse(tokens: list[Token]) -> CopyStatement:
    """The COPY in a statement's tokens.

    Raises:
        CopyRefused: a part is no COPY syntax, or the stand-in does not execute an option.
    """
    cursor = _Cursor(tokens)
    cursor.expect("COPY")
    table = [cursor.name()]
    if cursor.accept("."):
        table.append(cursor.name())
    columns: list[str] = []
    if cursor.accept("("):
        columns.append(cursor.name())
        while not cursor.accept(")"):
            cursor.expect(",")
            columns.append(cursor.name())
    copy = CopyStatement(table=tuple(table), columns=tuple(columns))
    cursor.expect("FROM")
    copy.source = cursor.string()
    while cursor.left:
        token = cursor.next("an option")
        if token.upper not in _OPTIONS:
            raise CopyRefused(f"syntax error at or near {token.text!r}: no COPY option that is known here")
        _OPTIONS[token.upper](copy, cursor)
    _check(copy)
    return copy


def _check(copy: CopyStatement) -> None:
    """Refuse options that do not fit together."""
    if not copy.source.startswith("s3://"):
        raise CopyRefused(f"COPY source {copy.source!r} is not supported: s3:// only")
    if not copy.manifest:
        raise CopyRefused("COPY without MANIFEST is not supported: a prefix may name what is not committed")
    if copy.iam_role is None:
        raise CopyRefused("COPY needs IAM_ROLE")
    if copy.format is None:
        raise CopyRefused("COPY needs CSV or AVRO: plain delimited text is not supported")
    if copy.format == "avro" and copy.compression is not None:
        raise CopyRefused("AVRO files carry their own codec: GZIP, BZIP2 and ZSTD do not apply")
    if copy.format == "avro" and (copy.null_as != DEFAULT_NULL or copy.empty_as_null or copy.blanks_as_null):
        raise CopyRefused("NULL AS, EMPTYASNULL and BLANKSASNULL are about text: AVRO has a NULL of its own")
