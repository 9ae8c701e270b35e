"""Bytes of a version that does not exist yet, and the upgrade of a reader to it."""

import pytest

from app.core.formats import block as block_format
from app.core.formats import step_message, transaction_record


def newer_block(message: bytes) -> bytes:
    """A block of version 2; its batch has an id like the collector's, which many tests do not need."""
    identified = bytearray(message)
    identified[0] = 2
    identified[11] = 0x70 | identified[11] & 0x0F
    identified[13] = 0x80 | identified[13] & 0x3F
    return bytes(identified)


def newer_step(message: bytes) -> bytes:
    """A step of version 2."""
    return b"STP2" + message[4:]


def newer_record(body: bytes) -> bytes:
    """A transaction record of version 2."""
    assert b'"version":1' in body
    return body.replace(b'"version":1', b'"version":2', 1)


def newer_checkpoint(message: bytes) -> bytes:
    """A checkpoint of version 2."""
    assert b"\xa2at" in message
    return message.replace(b"\xa2at", b"\xa3at2", 1)


def upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the process reads version 2 of blocks, steps and records; only the version number differs."""
    monkeypatch.setattr(block_format, "BLOCK_VERSION", 2)
    monkeypatch.setattr(step_message, "STEP_VERSION", 2)
    monkeypatch.setattr(transaction_record, "RECORD_VERSION", 2)
