"""Hooks with which a test or a simulation gets between a twin and its caller."""

from collections.abc import Awaitable, Callable

Hook = Callable[[str, str], Awaitable[None]]
"""Awaited with the call's name (a method of the port) and its subject (a key, a batch id, a shard id, or "")."""


class Hooked:
    """A twin with a hook on either side of each call.

    If `before` raises, the call is not made: nothing is changed (ServiceUnavailable). If `after` raises, the change is made
    and the answer is lost (OutcomeUnknown). A hook may also only delay.
    """

    before: Hook | None = None
    after: Hook | None = None

    async def _enter(self, call: str, subject: str = "") -> None:
        if self.before is not None:
            await self.before(call, subject)

    async def _leave(self, call: str, subject: str = "") -> None:
        if self.after is not None:
            await self.after(call, subject)
