"""SQL text cut into tokens, enough to recognise and rewrite the statements that only Redshift has."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?\*/)
      | (?P<string>[eE]?'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")*")
      | (?P<dollar>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
      | (?P<word>[A-Za-z_][\w$]*)
      | (?P<number>\d+(?:\.\d+)?)
      | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """A token: its kind (string, quoted, dollar, word, number, sign) and its text as written."""

    kind: str
    text: str

    @property
    def upper(self) -> str:
        """The upper-case text of a word or sign; empty for quoted things, which are never keywords."""
        return self.text.upper() if self.kind in {"word", "sign", "number"} else ""

    @property
    def value(self) -> str:
        """The value of a string or an identifier; unquoted identifiers fold to lower case."""
        if self.kind == "string":
            return self.text[self.text.index("'") + 1 : -1].replace("''", "'")
        if self.kind == "quoted":
            return self.text[1:-1].replace('""', '"')
        return self.text.lower()


def statements(sql: str) -> list[list[Token]]:
    """The tokens of each statement in `sql`, comments and white space dropped, empty statements left out."""
    out: list[list[Token]] = [[]]
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup or "sign"
        if match.group("dollar") is not None:
            kind = "dollar"
        if kind == "space":
            continue
        if kind == "sign" and match.group() == ";":
            out.append([])
            continue
        out[-1].append(Token(kind, match.group()))
    return [tokens for tokens in out if tokens]


def starts_with(tokens: Sequence[Token], *words: str) -> bool:
    """Whether a statement begins with these keywords."""
    return len(tokens) >= len(words) and all(t.upper == w for t, w in zip(tokens, words, strict=False))


def quote(name: str) -> str:
    """`name` as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as a string literal."""
    return "'" + text.replace("'", "''") + "'"
