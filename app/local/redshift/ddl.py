"""CREATE TABLE of Redshift for PostgreSQL: what means storage is dropped, keys stay unenforced, VARCHAR counts bytes."""

from collections.abc import Iterator
from typing import Final

from app.local.redshift.sql_tokens import Token, literal, quote

BYTES_SUFFIX: Final = "_bytes"
"""A column's check of its length in bytes is named `<column>_bytes`."""
_DEFAULT_VARCHAR: Final = "256"
_MAX_VARCHAR: Final = "65535"
_VARCHARS: Final = frozenset({"VARCHAR", "TEXT", "NVARCHAR"})


def is_create_table(tokens: list[Token]) -> bool:
    """Whether a statement is a CREATE TABLE with a column list."""
    words = [token.upper for token in tokens[:4]]
    if words[:1] != ["CREATE"] or "TABLE" not in words:
        return False
    return any(token.upper == "(" for token in tokens) and not any(token.upper == "SELECT" for token in tokens)


def rewrite(tokens: list[Token]) -> str:
    """The statement for PostgreSQL.

    DISTSTYLE, DISTKEY, SORTKEY, ENCODE and BACKUP are dropped; PRIMARY KEY, UNIQUE and REFERENCES too, for Redshift does not
    enforce them (a primary key's columns stay NOT NULL). VARCHAR(n) gets a check of its length in bytes.
    """
    start = next(n for n, token in enumerate(tokens) if token.upper == "(")
    end = _closing(tokens, start)
    elements = list(_elements(tokens[start + 1 : end]))
    keys = {name for element in elements for name in _primary_key(element)}
    columns = [_column(element, keys) for element in elements if not _is_table_key(element)]
    head = " ".join(token.text for token in tokens[:start])
    return f"{head} (\n  " + ",\n  ".join(columns) + "\n)"  # what follows the list is storage alone


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
            yield part
            part = []
        else:
            part.append(token)
    if part:
        yield part


def _is_table_key(element: list[Token]) -> bool:
    """Whether an element is a key of the table and no column."""
    words = [token.upper for token in element]
    if words[0] == "CONSTRAINT":
        words = words[2:]
    return words[:2] in (["PRIMARY", "KEY"], ["FOREIGN", "KEY"]) or words[:2] == ["UNIQUE", "("]


def _primary_key(element: list[Token]) -> list[str]:
    """The columns that a table's primary key names."""
    words = [token.upper for token in element]
    if not _is_table_key(element) or "PRIMARY" not in words:
        return []
    return [token.value for token in element[words.index("(") + 1 :] if token.kind in {"word", "quoted"}]


def _column(element: list[Token], keys: set[str]) -> str:
    """One column for PostgreSQL."""
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
            bound = _MAX_VARCHAR if words[at + 1] == "MAX" else rest[at + 1].text
            at += 3
        out.append(f"VARCHAR({bound})")
    if (name in keys or "PRIMARY" in words) and "NOT" not in words:
        out.append("NOT NULL")
    if bound:
        out.append(f"CONSTRAINT {quote(name + BYTES_SUFFIX)} CHECK (octet_length({quote(name)}) <= {bound})")
    return " ".join(out)


def _storage_or_key(words: list[str], rest: list[Token], at: int) -> int:
    """How many tokens from `at` on say how a column is stored, or declare a key that is not enforced."""
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
    """A statement that fails with this error, wherever it runs: the transaction is aborted as by any other failure."""
    more = f", DETAIL = {literal(detail)}" if detail else ""
    body = f"BEGIN RAISE EXCEPTION USING ERRCODE = {literal(sqlstate)}, MESSAGE = {literal(text)}{more}; END"
    return f"DO {literal(body)}"
