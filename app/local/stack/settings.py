"""The settings of the local stack itself; no role reads them. `app.settings` has all others.

A port that is set is used or refused; 0 means a free one. A port that is not set is the usual one, or a free one if that is
taken.
"""

from pathlib import Path
from typing import Final

from pydantic import Field

from app.settings import HOUR_S, KNOWN_NAMES, LEAST_S
from app.variables import MOST_PORT, PREFIX, Variables, read

PORTS: Final = ("collector", "kafka", "aws", "warehouse")
"""The values that an operator may give a port."""
PORT_VARIABLES: Final = {name: f"{PREFIX}{name.upper()}_PORT" for name in PORTS}
"""Service -> the variable of its port."""


class LocalStackSettings(Variables):
    """How the local stack runs on this machine."""

    collector_port: int | None = Field(None, ge=0, le=MOST_PORT)
    """Port to which events are posted; usually 8000."""
    kafka_port: int | None = Field(None, ge=0, le=MOST_PORT)
    """Port of the broker; usually 9092."""
    aws_port: int | None = Field(None, ge=0, le=MOST_PORT)
    """Port of the AWS stand-in; usually 4566."""
    warehouse_port: int | None = Field(None, ge=0, le=MOST_PORT)
    """Port of the Redshift stand-in; usually 5439."""
    kafka_jars: Path | None = None
    """Folder of Kafka's jars. Default: `.kafka` of this checkout."""
    restart_healthy_s: float = Field(60, ge=LEAST_S, le=HOUR_S)
    """A process that ran this long has recovered: its earlier deaths no longer delay its next start."""

    @property
    def set_ports(self) -> dict[str, int]:
        """Service -> its port, if one is set."""
        ports: dict[str, int | None] = {name: getattr(self, f"{name}_port") for name in PORTS}
        return {name: port for name, port in ports.items() if port is not None}


def read_local_settings() -> LocalStackSettings:
    """The local stack's settings.

    Raises:
        ConfigurationError: a value is refused, or a variable is no setting; the text names each and the remedy.
    """
    return read(LocalStackSettings, KNOWN_NAMES)
