"""Bots by their user agent, each by a named rule (rule J4).

    empty_user_agent     no user agent, or only blanks
    user_agent:<word>    a rule of ours names it, or a list that others keep
                         <word> is the rule's name, or the part that the list recognised

Two lists that others keep are asked, crawlerdetect and crawler-user-agents, because neither knows all that the other knows.
A file of rules goes before them:

    bot NAME PATTERN     an agent in which PATTERN is found is a bot
    people PATTERN       the words that PATTERN finds are cut out before the lists are asked
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from crawlerdetect import CrawlerDetect

from app.core.events.canonical_json import cut_text, storable_text
from app.errors import ConfigurationError

EMPTY_USER_AGENT: Final = "empty_user_agent"
MAX_JUDGED_CHARACTERS: Final = 512
"""Only so much of a user agent is read, because the lists' patterns take quadratic time on endless words."""
MAX_WORD_BYTES: Final = 64
_PLAIN: Final = re.compile(r"(?:[^\\.^$*+?{}\[\]|()]|\\[^\w\s])+")
"""A pattern without any operator: a word in which signs may be escaped."""
_LINK: Final = re.compile(r"\+ ?https?://[^\s;,)]*")
"""Programs name a page that explains them (`+https://...`); no browser does."""

_crawlers: Final = CrawlerDetect()


class AgentRule(NamedTuple):
    """A line of a rules file."""

    bot: str | None
    """The bot's name; None if the pattern finds words of people."""
    pattern: str


def parse_agent_rules(text: str) -> list[AgentRule]:
    """The rules in a file's text: `bot NAME PATTERN` or `people PATTERN` a line, ` #` or a first `#` starts a comment.

    Raises:
        ConfigurationError: a line is neither a rule nor a comment, or its pattern is none; the text names the line.
    """
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = re.sub(r"(^|\s+)#.*", "", line).strip()
        if not entry:
            continue
        kind, _, rest = entry.partition(" ")
        name, _, pattern = rest.strip().partition(" ") if kind == "bot" else (None, "", rest)
        pattern = pattern.strip()
        try:
            if kind not in ("bot", "people") or not pattern:
                raise ValueError("it must be `bot NAME PATTERN` or `people PATTERN`")
            if re.search(r"\\[1-9]|\(\?P", pattern):  # all patterns become one, where the groups have other numbers
                raise ValueError("the pattern must not refer to its groups")
            if re.compile(f"(?:{pattern})").search(""):
                raise ValueError("the pattern matches every agent")
        except (re.error, ValueError, RecursionError, OverflowError) as exc:
            raise ConfigurationError(f"bot agents, line {number}: {line.strip()!r}: {exc}") from exc
        rules.append(AgentRule(name, pattern))
    return rules


class BotAgents:
    """Judges user agents.

    Args:
        rules: Ours, the first that matches names the bot.
        crawlers: Patterns of the list crawler-user-agents.
    """

    def __init__(self, rules: Sequence[AgentRule] = (), crawlers: Iterable[str] = ()) -> None:
        self._bots = [(rule.bot, re.compile(rule.pattern)) for rule in rules if rule.bot is not None]
        self._any_bot = _any_of(rule.pattern for rule in rules if rule.bot is not None)
        self._people = _any_of(rule.pattern for rule in rules if rule.bot is None)
        patterns = list(crawlers)
        self._words = [re.sub(r"\\(.)", r"\1", pattern) for pattern in patterns if _PLAIN.fullmatch(pattern)]
        self._other = _any_of(pattern for pattern in patterns if not _PLAIN.fullmatch(pattern))

    def judge(self, user_agent: str | None) -> str | None:
        """The rule that names `user_agent` a bot; None if it may be a person. A call takes some 0.3 ms: cache the answer."""
        if user_agent is None or not user_agent.strip():
            return EMPTY_USER_AGENT
        text = user_agent[:MAX_JUDGED_CHARACTERS]
        word = self._ours(text) or self._listed(text if self._people is None else self._people.sub(" ", text))
        return None if word is None else f"user_agent:{cut_text(storable_text(word).strip(), MAX_WORD_BYTES)}"

    def _ours(self, text: str) -> str | None:
        if self._any_bot is None or not self._any_bot.search(text):
            return None
        return next((name for name, pattern in self._bots if pattern.search(text)), None)

    def _listed(self, text: str) -> str | None:
        if _crawlers.is_crawler(text):
            return _crawlers.get_matches() or ""
        for word in self._words:  # one search for all words takes ten times as long
            if word in text:
                return word
        found = (self._other.search(text) if self._other else None) or _LINK.search(text)
        return found[0] if found else None


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """One pattern that finds what any of `patterns` finds; None without any."""
    joined = "|".join(f"(?:{pattern})" for pattern in patterns)
    return re.compile(joined) if joined else None
