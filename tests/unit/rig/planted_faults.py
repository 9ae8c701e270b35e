"""Targets with planted faults; each reads JSON, and declares FormatInvalid alone."""

import os
from collections.abc import Callable
from typing import Any, Final

import msgspec

from app.core.formats.decoding import read
from app.errors import FormatInvalid
from tests.rig.fuzz.target import Target

SAMPLES: Final = (b'{"name":"a","times":[1,2,3],"big":false}', b'{"name":"b","times":[],"big":true}')
_decoder: Final = msgspec.json.Decoder(dict[str, Any])


def _reader(fault: Callable[[dict[str, Any]], object]) -> Callable[[bytes], None]:
    def read_json(data: bytes) -> None:
        fault(read(_decoder, data, "sample"))

    return read_json


def _spin(value: dict[str, Any]) -> None:
    while value.get("big") is None:
        pass


def _die(value: dict[str, Any]) -> None:
    if value.get("times") is None:
        os.abort()


def _swallow(value: dict[str, Any]) -> None:
    if isinstance(value.get("times"), int):
        bytes(1 << 40)


TARGETS: Final = {
    target.name: target
    for target in (
        Target("missing", SAMPLES, _reader(lambda value: value["name"]), (FormatInvalid,)),
        Target("spins", SAMPLES, _reader(_spin), (FormatInvalid,)),
        Target("dies", SAMPLES, _reader(_die), (FormatInvalid,)),
        Target("swallows", SAMPLES, _reader(_swallow), (FormatInvalid,)),
        Target("sound", SAMPLES, _reader(lambda value: value.get("name")), (FormatInvalid,)),
    )
}
