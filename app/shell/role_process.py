"""What a role asks of the process around it, whatever runs it: `app.shell.faust_app.InstreamApp`, or a simulation."""

from typing import Protocol

from app.settings import Settings


class RoleProcess(Protocol):
    """The process of one role."""

    @property
    def settings(self) -> Settings:
        """The process's settings."""

    async def crash(self, reason: BaseException) -> None:
        """End it."""
