"""ALTER TABLE of Redshift for PostgreSQL: one change a statement, and the refusal of what Redshift does not alter.

Source: Amazon Redshift Database Developer Guide, "ALTER TABLE". A change that is not handled is a syntax error: PostgreSQL
takes many changes that Redshift refuses, so no change may be overlooked.
"""

from typing import Final

from app.local.redshift import ddl
from app.local.redshift.sql_tokens import Token, literal, quote, starts_with

UNSUPPORTED: Final = "0A000"
IN_TRANSACTION: Final = "25001"
_INTERNAL: Final = "XX000"
_NOT_ADDED: Final = frozenset({"PRIMARY", "UNIQUE", "REFERENCES", "IDENTITY", "GENERATED", "DISTKEY", "SORTKEY"})
"""Properties that an added column cannot have."""
_AS_IT_IS: Final = (["RENAME", "TO"], ["OWNER", "TO"], ["DROP", "CONSTRAINT"])
_NOTHING: Final = "DO 'BEGIN END'"
_FORMS: Final = (
    "only ADD COLUMN, ADD PRIMARY KEY, DROP COLUMN, DROP CONSTRAINT, ALTER COLUMN ... TYPE, ALTER DISTKEY, DISTSTYLE, "
    "SORTKEY and ENCODE, RENAME and OWNER TO are known here"
)


class AlterRefused(ddl.StatementRefused):
    """An ALTER TABLE that Redshift refuses, or the stand-in does not know."""


def is_alter_table(tokens: list[Token]) -> bool:
    """Whether a statement alters a table."""
    return starts_with(tokens, "ALTER", "TABLE")


def rewrite(tokens: list[Token], *, alone: bool) -> str:
    """The statement for PostgreSQL.

    Args:
        tokens: the statement.
        alone: whether it runs outside a transaction block, and no other statement came with it.

    Raises:
        StatementRefused: Redshift refuses the statement, as far as this is known without a look at the table.
    """
    name, action = _table(tokens[2:])
    words = [token.upper for token in action]
    if "," in _top_level(action):
        raise _syntax(",")
    table = ".".join(quote(part) for part in name)
    if words[:2] in _AS_IT_IS:
        return " ".join(token.text for token in tokens)
    if words[:2] == ["RENAME", "COLUMN"] and words[3:4] == ["TO"] and len(words) == 5:
        return _rename_column(table, action[2].value, action[4].value)
    if words[:1] == ["ADD"]:
        return _add(table, name[-1], action[1:])
    if words[:1] == ["DROP"]:
        return _drop_column(table, action[1:])
    if words[:2] == ["ALTER", "COLUMN"]:
        return _alter_column(table, name[-1], action[2:], alone=alone)
    if words[:1] == ["ALTER"]:
        return _alter_storage(table, action[1:])
    raise _syntax(action[0].text if action else "end of input")


def _table(tokens: list[Token]) -> tuple[list[str], list[Token]]:
    """The parts of the table's name, and the tokens after it."""
    if not tokens or tokens[0].upper in {"IF", "ONLY"}:
        raise _syntax(tokens[0].text if tokens else "end of input")
    end = 3 if len(tokens) > 2 and tokens[1].upper == "." else 1
    return [token.value for token in tokens[:end:2]], tokens[end:]


def _top_level(tokens: list[Token]) -> list[str]:
    """The words outside of parentheses."""
    depth, found = 0, []
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.upper, 0)
        if depth == 0:
            found.append(token.upper)
    return found


def _syntax(text: str) -> AlterRefused:
    return AlterRefused(ddl.SYNTAX, f'syntax error at or near "{text}" of ALTER TABLE: {_FORMS}')


def _add(table: str, name: str, tokens: list[Token]) -> str:
    words = [token.upper for token in tokens]
    if words[:2] == ["PRIMARY", "KEY"]:
        return f"ALTER TABLE {table} ADD {ddl.mark_of(name + ddl.PRIMARY_KEY, ddl.names_in(tokens[2:]))}"
    column, words = (tokens[1:], words[1:]) if words[:1] == ["COLUMN"] else (tokens, words)
    if words[:3] == ["IF", "NOT", "EXISTS"]:
        raise _syntax("NOT")
    if len(column) < 2 or words[0] in {"CONSTRAINT", "UNIQUE", "FOREIGN"}:
        raise _syntax(column[0].text if column else "end of input")
    if wrong := _NOT_ADDED & set(words[1:]):
        raise AlterRefused(ddl.SYNTAX, f"ALTER TABLE ADD COLUMN does not support {', '.join(sorted(wrong))}")
    filled = "DEFAULT" in words and words[words.index("DEFAULT") + 1 :][:1] != ["NULL"]
    if any(words[n : n + 2] == ["NOT", "NULL"] for n in range(len(words))) and not filled:
        raise AlterRefused(UNSUPPORTED, "ALTER TABLE ADD COLUMN defined as NOT NULL must have a non-null default expression")
    return f"ALTER TABLE {table} ADD COLUMN {ddl.column_of(column, set())}"


def _drop_column(table: str, tokens: list[Token]) -> str:
    tokens = tokens[1:] if tokens[:1] and tokens[0].upper == "COLUMN" else tokens
    how = [token.upper for token in tokens[1:]]
    if not tokens or how not in ([], ["RESTRICT"], ["CASCADE"]):
        raise _syntax(tokens[1].text if tokens else "end of input")
    column = tokens[0].value
    refused = [
        _raise_if(_has_mark(table, column, f"= {literal(key)}"), UNSUPPORTED, f"cannot drop {key} column {column}")
        for key in (ddl.DISTRIBUTION_KEY, ddl.SORT_KEY)
    ]
    return _block(*refused, " ".join([f"ALTER TABLE {table} DROP COLUMN {quote(column)}", *how]))


def _rename_column(table: str, old: str, new: str) -> str:
    """Rename a column and its check; an error of the check shows the check's name."""
    check = f"ALTER TABLE {table} RENAME CONSTRAINT {quote(old + ddl.BYTES_SUFFIX)} TO {quote(new + ddl.BYTES_SUFFIX)}"
    has_check = _has_mark(table, new, f"= {literal(old + ddl.BYTES_SUFFIX)}")
    rename = f"ALTER TABLE {table} RENAME COLUMN {quote(old)} TO {quote(new)}"
    return _block(rename, f"IF {has_check} THEN {check}; END IF")


def _alter_column(table: str, name: str, tokens: list[Token], *, alone: bool) -> str:
    words = [token.upper for token in tokens]
    if words[1:2] == ["ENCODE"]:
        return _NOTHING
    if words[1:2] != ["TYPE"]:
        raise AlterRefused(UNSUPPORTED, "ALTER COLUMN SET/DROP is not supported")
    kind = words[2:4] if words[2:4] == ["CHARACTER", "VARYING"] else words[2:3]
    bound = tokens[2 + len(kind) :]
    if kind not in (["VARCHAR"], ["CHARACTER", "VARYING"]) or [t.upper for t in bound[::2]] != ["(", ")"]:
        raise AlterRefused(UNSUPPORTED, "ALTER COLUMN TYPE changes nothing but the size of a VARCHAR")
    if not alone:
        raise AlterRefused(IN_TRANSACTION, "ALTER TABLE ALTER COLUMN cannot run inside a transaction block")
    return _resize(table, name, tokens[0].value, ddl.varchar_bound(bound))


def _resize(table: str, name: str, column: str, size: str) -> str:
    """Give a VARCHAR another size, after the checks that Redshift makes."""
    this = f'cannot alter column "{column}" of relation "{name}"'
    of_column = f"FROM pg_attribute WHERE attrelid = {literal(table)}::regclass AND attname = {literal(column)}"
    kind = f"(SELECT format_type(atttypid, atttypmod) {of_column} AND NOT attisdropped)"
    keys = f"IN ({literal(ddl.DISTRIBUTION_KEY)}, {literal(ddl.SORT_KEY)})"
    too_long = f"EXISTS (SELECT 1 FROM {table} WHERE octet_length({quote(column)}) > {size})"
    check = ddl.bytes_check(column, size)
    return _block(
        _raise_if(f"{kind} IS NULL", "42703", f'column "{column}" of relation "{name}" does not exist'),
        _raise_if(f"{kind} NOT LIKE 'character varying%'", UNSUPPORTED, f"{this}: it is no VARCHAR"),
        _raise_if(f"(SELECT atthasdef {of_column})", UNSUPPORTED, f"{this} with a default value"),
        _raise_if(_has_mark(table, column, keys), _INTERNAL, "found unexpected dependency for column"),
        _raise_if(_has_mark(table, column, f"LIKE '%{ddl.PRIMARY_KEY}'"), UNSUPPORTED, f"{this} with a key"),
        _raise_if(f"{kind} = 'character varying({size})'", UNSUPPORTED, f"{this}, target column size should be different"),
        _raise_if(too_long, UNSUPPORTED, f"{this}, target column size is smaller than the data"),
        f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {quote(column + ddl.BYTES_SUFFIX)}, "
        f"ALTER COLUMN {quote(column)} TYPE VARCHAR({size}), ADD {check}",
    )


def _alter_storage(table: str, tokens: list[Token]) -> str:
    """Change the layout of a table on disk: only its keys matter here."""
    words = [token.upper for token in tokens]
    if words[:1] in (["COMPOUND"], ["INTERLEAVED"]):
        tokens, words = tokens[1:], words[1:]
    if words == ["ENCODE", "AUTO"]:
        return _NOTHING
    if words[:1] == ["SORTKEY"]:
        return _key(table, ddl.SORT_KEY, [] if words[1:] in (["AUTO"], ["NONE"]) else ddl.names_in(tokens[1:]))
    if words[:1] == ["DISTSTYLE"] and words[1:] in (["ALL"], ["EVEN"], ["AUTO"]):
        return _key(table, ddl.DISTRIBUTION_KEY, [])
    if words[:2] == ["DISTSTYLE", "KEY"]:
        tokens, words = tokens[2:], words[2:]
    if words[:1] == ["DISTKEY"] and len(words) == 2:
        return _key(table, ddl.DISTRIBUTION_KEY, [tokens[1].value])
    raise _syntax(tokens[0].text if tokens else "end of input")


def _key(table: str, name: str, columns: list[str]) -> str:
    add = f", ADD {ddl.mark_of(name, columns)}" if columns else ""
    return f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {quote(name)}{add}"


# --- blocks that look at the table before they change it


def _block(*statements: str) -> str:
    return f"DO {literal('BEGIN ' + '; '.join(statements) + '; END')}"


def _raise_if(condition: str, sqlstate: str, text: str) -> str:
    return f"IF {condition} THEN RAISE EXCEPTION USING ERRCODE = {literal(sqlstate)}, MESSAGE = {literal(text)}; END IF"


def _has_mark(table: str, column: str, names: str) -> str:
    """Whether a constraint of such a name is on the column."""
    return (
        "EXISTS (SELECT 1 FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey) "
        f"WHERE c.conrelid = {literal(table)}::regclass AND a.attname = {literal(column)} AND c.conname {names})"
    )
