"""Reads settings from environment variables: names, bounds, and faults in one line.

A settings class derives from `Variables`. Names are compared without regard to case, as pydantic-settings does. A field with
`repr=False` is a secret: no message shows its value. A name that nothing reads is refused, because a misspelt setting would
otherwise leave its default in force in silence.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import SettingsRefused

PREFIX: Final = "INSTREAM_"
MOST_PORT: Final = 65_535
SHOWN_CHARACTERS: Final = 60
"""Longest part of a value that an error shows."""
_PART: Final = "part"
_USER_INFO: Final = re.compile(r".*@", re.DOTALL)
_SERVICE_LINK: Final = re.compile(r"(\w+_)?(service_host|service_port(_\w+)?|port_\d+_(tcp|udp)(_\w+)?)")
"""Variables that Kubernetes adds for a service whose name begins with `instream`."""


class Variables(BaseSettings):
    """The base of every settings class: one prefix, frozen values, finite numbers, no empty names."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    home: Path = Path(".instream")
    """Run state of the local stack, and each worker's RocksDB below `data/<role>`."""

    def __init__(self, **values: Any) -> None:
        """Read the variables; each of `values` takes the place of the variable of its name.

        Raises:
            SettingsRefused: a value is refused; the text names each variable, its value unless that is a secret, and
                what it must be.
        """
        try:
            super().__init__(**values)
        except ValidationError as exc:
            found = exc.errors()
        else:
            return
        # not inside `except`: the error would carry pydantic's along, with every value
        raise _refusal(_fault(type(self), error) for error in found)

    @field_validator("*", mode="before")
    @classmethod
    def _is_given(cls, value: object, info: ValidationInfo) -> object:
        """Refuse an empty text; only a list may be empty."""
        may_be_empty = get_origin(cls.model_fields[str(info.field_name)].annotation) in {tuple, dict}
        if isinstance(value, str) and not value.strip() and not may_be_empty:
            raise ValueError("give a value, or unset it for the default")
        return value


Read = TypeVar("Read", bound=Variables)


def read(settings: type[Read], known: Collection[str]) -> Read:
    """The settings of this process.

    Args:
        settings: the class to read.
        known: every name that anything reads, in lower case without the prefix.

    Raises:
        SettingsRefused: a value is refused, or a variable has a name that nothing reads or that is spelled in two ways.
    """
    faults = misnamed(os.environ, known)
    try:
        found = settings()
    except SettingsRefused as exc:
        raise SettingsRefused("; ".join([str(exc), *faults])) from None
    if faults:
        raise _refusal(faults)
    return found


def misnamed(environment: Mapping[str, str], known: Collection[str]) -> list[str]:
    """A line on each variable with the prefix that nothing reads, and on each that is spelled in two ways."""
    spellings = defaultdict[str, list[str]](list)
    for name in sorted(environment):
        if _is_ours(name):
            spellings[name[len(PREFIX) :].lower()].append(name)
    faults: list[str] = []
    for field, names in spellings.items():
        if field not in known:
            faults += [f"{shown(name)} is no setting{_remedy(field, known)}" for name in names]
        elif len(names) > 1:
            faults.append(f"{' and '.join(names)} are the same setting: keep one of them")
    return faults


def in_capitals(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the names of settings in capitals, however they are spelled."""
    return {name.upper() if _is_ours(name) else name: value for name, value in environment.items()}


def take_on(variables: Mapping[str, str]) -> None:
    """Put `variables` into this process's environment, in the place of any other spelling of their names."""
    for name in [name for name in os.environ if _is_ours(name) and name.upper() in variables]:
        del os.environ[name]
    os.environ.update(variables)


def range_words(lower: float, upper: float, *, is_whole: bool) -> str:
    """The allowed range of a number, as the remedy in an error's text."""
    return f"give a {'whole ' if is_whole else ''}number from {_digits(lower)} to {_digits(upper)}"


def bounds_of(field: FieldInfo) -> tuple[float, float] | None:
    """The lowest and the highest value of a numeric setting; None of any other."""
    lower = next((one.ge for one in field.metadata if isinstance(one, Ge)), None)
    upper = next((one.le for one in field.metadata if isinstance(one, Le)), None)
    return (lower, upper) if isinstance(lower, int | float) and isinstance(upper, int | float) else None


def shown(value: object) -> str:
    """A value for an error's text: one short line, in quotes where it would not be seen, nothing of what precedes an `@`."""
    text = _USER_INFO.sub("***@", str(value))
    if len(text) > SHOWN_CHARACTERS:
        text = text[:SHOWN_CHARACTERS] + "..."
    return text if text.isprintable() and text.strip() == text != "" else repr(text)


def bad_part(part: str, is_no: str) -> PydanticCustomError:
    """A validator's exception for one part of a list: the fault then shows that part instead of the whole value."""
    return PydanticCustomError(_PART, "{part} is no {is_no}", {"part": shown(part), "is_no": is_no})


def _is_ours(name: str) -> bool:
    return name.upper().startswith(PREFIX)


def _remedy(field: str, known: Collection[str]) -> str:
    if _SERVICE_LINK.fullmatch(field):
        return ": unset it; where Kubernetes sets it, say enableServiceLinks: false"
    if near := get_close_matches(field, sorted(known), 1):
        return f"; did you mean {PREFIX}{near[0].upper()}?"
    return ": unset it, or see app/settings.py for the names"


def _refusal(faults: Iterable[str]) -> SettingsRefused:
    return SettingsRefused("settings do not fit: " + "; ".join(faults))


def _fault(settings: type[Variables], error: ErrorDetails) -> str:
    """One line on one fault: variable, value, remedy. A fault of several settings together names them itself."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    field = settings.model_fields.get(name)
    if field is None:
        return f"{name} is no setting"
    if not field.repr or error["type"] == _PART:
        return f"{PREFIX}{name.upper()}: {message}"
    if (bounds := bounds_of(field)) is not None:
        message = range_words(*bounds, is_whole=int in {field.annotation, *get_args(field.annotation)})
    elif error["type"] == "bool_parsing":
        message = "give true or false"
    elif error["type"] == "literal_error":
        message = f"give {error['ctx']['expected']}"
    return f"{PREFIX}{name.upper()}={shown(error['input'])}: {message}"


def _digits(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
