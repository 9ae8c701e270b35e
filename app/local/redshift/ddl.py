"""CREATE TABLE of Redshift for PostgreSQL: storage options are dropped, keys stay unenforced, VARCHAR counts bytes.

A primary key, distribution key or sort key leaves a constraint that always holds and that names its columns. From it `alter`
knows the changes that Redshift refuses.
"""

from collections.abc import Iterator
from typing import Final

from app.local.redshift.sql_tokens import Token, literal, quote

SYNTAX: Final = "42601"
BYTES_SUFFIX: Final = "_bytes"
"""A column's check of its length in bytes is named `<column>_bytes`."""
PRIMARY_KEY: Final = "_pkey"
"""A table's primary key is named `<table>_pkey`."""
DISTRIBUTION_KEY: Final = "distkey"
SORT_KEY: Final = "sortkey"
_DEFAULT_VARCHAR: Final = "256"
MAX_VARCHAR: Final = "65535"
_VARCHARS: Final = frozenset({"VARCHAR", "TEXT", "NVARCHAR"})


class StatementRefused(Exception):
    """A statement that Redshift refuses, or the stand-in cannot read."""

    def __init__(self, sqlstate: str, text: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


def syntax_error(text: str) -> StatementRefused:
    """The refusal of a statement that cannot be read at `text`."""
    return StatementRefused(SYNTAX, f'syntax error at or near "{text}"')


def is_create_table(tokens: list[Token]) -> bool:
    """Whether a statement is a CREATE TABLE with a column list."""
    words = [token.upper for token in tokens[:4]]
    if words[:1] != ["CREATE"] or "TABLE" not in words:
        return False
    return any(token.upper == "(" for token in tokens) and not any(token.upper == "SELECT" for token in tokens)


def rewrite(tokens: list[Token]) -> str:
    """The statement for PostgreSQL.

    DISTSTYLE, DISTKEY, SORTKEY, ENCODE and BACKUP are dropped; PRIMARY KEY, UNIQUE and REFERENCES too, because Redshift does
    not enforce them (a primary key's columns stay NOT NULL). VARCHAR(n) gets a check of its length in bytes.

    Raises:
        StatementRefused: the column list cannot be read.
    """
    start = next(n for n, token in enumerate(tokens) if token.upper == "(")
    end = _closing(tokens, start)
    if end == len(tokens):
        raise syntax_error("end of input")
    elements = list(_elements(tokens[start + 1 : end]))
    primary = list(dict.fromkeys(name for element in elements for name in _primary_key(element)))
    columns = [column_of(element, set(primary)) for element in elements if not _is_table_key(element)]
    head = " ".join(token.text for token in tokens[:start])
    keys = {tokens[start - 1].value + PRIMARY_KEY: primary, **_storage_keys(elements, tokens[end + 1 :])}
    marks = [mark_of(name, names) for name, names in keys.items() if names]
    return f"{head} (\n  " + ",\n  ".join(columns + marks) + "\n)"  # only storage options follow the list


def mark_of(name: str, columns: list[str]) -> str:
    """The constraint that says that these columns are a key; every row keeps it."""
    return f"CONSTRAINT {quote(name)} CHECK ({' AND '.join(f'({quote(c)} IS NULL) IS NOT NULL' for c in columns)})"


def names_in(tokens: list[Token]) -> list[str]:
    """The names in a list in parentheses, with which `tokens` begin."""
    return [token.value for token in tokens[: _closing(tokens, 0)] if token.kind in {"word", "quoted"}]


def _storage_keys(elements: list[list[Token]], behind: list[Token]) -> dict[str, list[str]]:
    """The keys that are declared at columns or after the column list."""
    words = [token.upper for token in behind]
    keys = {}
    for key in (DISTRIBUTION_KEY, SORT_KEY):
        keys[key] = [e[0].value for e in elements if any(token.upper == key.upper() for token in e[1:])]
        if key.upper() in words:
            keys[key] = names_in(behind[words.index(key.upper()) + 1 :])
    return keys


def _closing(tokens: list[Token], start: int) -> int:
    """The index of the parenthesis that closes the one at `start`."""
    depth = 0
    for n in range(start, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[n].upper, 0)
        if depth == 0:
            return n
    return len(tokens)


def _elements(tokens: list[Token]) -> Iterator[list[Token]]:
    """The parts between top-level commas."""
    depth = 0
    part: list[Token] = []
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.upper, 0)
        if token.upper == "," and depth == 0:
            if not part:
                raise syntax_error(",")
            yield part
            part = []
        else:
            part.append(token)
    if not part:
        raise syntax_error(")")
    yield part


def _is_table_key(element: list[Token]) -> bool:
    """Whether an element is a key of the table and no column."""
    words = [token.upper for token in element]
    if words[0] == "CONSTRAINT":
        words = words[2:]
    return words[:2] in (["PRIMARY", "KEY"], ["FOREIGN", "KEY"]) or words[:2] == ["UNIQUE", "("]


def _primary_key(element: list[Token]) -> list[str]:
    """The columns of the primary key, declared for the table or at a column."""
    words = [token.upper for token in element]
    if "PRIMARY" not in words:
        return []
    if not _is_table_key(element):
        return [element[0].value]
    if "(" not in words:
        raise syntax_error(")")
    return [token.value for token in element[words.index("(") + 1 :] if token.kind in {"word", "quoted"}]


def column_of(element: list[Token], keys: set[str]) -> str:
    """One column for PostgreSQL.

    Raises:
        StatementRefused: the length of a VARCHAR cannot be read.
    """
    name, rest = element[0].value, element[1:]
    words = [token.upper for token in rest]
    out: list[str] = [quote(name)]
    bound = ""
    at = 0
    while at < len(rest):
        if taken := _storage_or_key(words, rest, at):
            at += taken
            continue
        taken = 2 if words[at : at + 2] == ["CHARACTER", "VARYING"] else int(words[at] in _VARCHARS)
        if not taken:
            out.append(rest[at].text)
            at += 1
            continue
        at += taken
        bound = _DEFAULT_VARCHAR
        if words[at : at + 1] == ["("]:
            bound = varchar_bound(rest[at : at + 3])
            at += 3
        out.append(f"VARCHAR({bound})")
    if name in keys and "NOT" not in words:
        out.append("NOT NULL")
    if bound:
        out.append(bytes_check(name, bound))
    return " ".join(out)


def varchar_bound(tokens: list[Token]) -> str:
    """The number of bytes in `(n)` or `(MAX)`.

    Raises:
        StatementRefused: there is another thing in the parentheses.
    """
    words = [token.upper for token in tokens]
    if len(words) != 3 or words[::2] != ["(", ")"] or not (words[1] == "MAX" or words[1].isdecimal()):
        raise syntax_error(tokens[1].text if len(tokens) > 1 else "end of input")
    return MAX_VARCHAR if words[1] == "MAX" else words[1]


def bytes_check(column: str, bound: str) -> str:
    """The constraint that a text has so many bytes at most."""
    return f"CONSTRAINT {quote(column + BYTES_SUFFIX)} CHECK (octet_length({quote(column)}) <= {bound})"


def _storage_or_key(words: list[str], rest: list[Token], at: int) -> int:
    """The number of tokens from `at` on that are storage options, or that declare a key that is not enforced."""
    word = words[at]
    if word in {"DISTKEY", "SORTKEY", "UNIQUE"}:
        return 1
    if word == "ENCODE" or words[at : at + 2] == ["PRIMARY", "KEY"]:
        return 2
    if word != "REFERENCES":
        return 0
    end = at + 2
    while words[end : end + 1] == ["."]:
        end += 2
    return (_closing(rest, end) + 1 if words[end : end + 1] == ["("] else end) - at


def raising(sqlstate: str, text: str, detail: str = "") -> str:
    """A statement that fails with this error anywhere: like any other failure it aborts the transaction."""
    more = f", DETAIL = {literal(detail)}" if detail else ""
    body = f"BEGIN RAISE EXCEPTION USING ERRCODE = {literal(sqlstate)}, MESSAGE = {literal(text)}{more}; END"
    return f"DO {literal(body)}"
