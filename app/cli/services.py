"""The settings of a command that asks services. Without a stack it asks only services that the operator named.

The defaults of the addresses lead to this machine's usual ports, and the default bucket's name to whoever has it on S3: a
stranger's stack would answer.
"""

from enum import Enum
from typing import TYPE_CHECKING

from app.errors import LocalStackError

if TYPE_CHECKING:
    from app.settings import Settings


class Asks(Enum):
    """A service, by the setting that names it."""

    KAFKA = "kafka"
    WAREHOUSE = "warehouse_url"
    AWS = "bucket"


def settings_to_ask(*services: Asks) -> "Settings":
    """The settings, for a command that asks these services.

    Raises:
        SettingsRefused: a setting does not fit.
        LocalStackError: no stack is up in HOME, and nobody named one of the services.
    """
    from app.settings import read_settings  # noqa: PLC0415 - commands load what they need

    settings = read_settings()
    insist_on(settings, *services)
    return settings


def insist_on(settings: "Settings", *services: Asks) -> None:
    """See that somebody named these services, or that a stack is up.

    Raises:
        LocalStackError: neither.
    """
    from app.local.stack.stack_file import home_of_environment  # noqa: PLC0415
    from app.variables import PREFIX  # noqa: PLC0415

    home = home_of_environment()
    unnamed = [PREFIX + each.value.upper() for each in services if each.value not in settings.model_fields_set]
    if unnamed and not home.stack_file.exists():
        raise LocalStackError(
            f"no stack is up in {home.path}, so nothing says which services to ask: run `instream up`, set INSTREAM_HOME to "
            f"the folder of a stack, or set {' and '.join(unnamed)}"
        )
