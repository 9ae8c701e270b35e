"""A sample of `make fuzz` over every target; and the proof that the fuzzer finds planted faults."""

import base64
import importlib
import inspect
import pkgutil
import re
import sys
import zlib
from types import CodeType, FrameType
from typing import Any

import pytest

import app.core.formats
from tests.rig.fuzz.mutate import LONGEST, case
from tests.rig.fuzz.one_case import SHORT, describe, play
from tests.rig.fuzz.run import Fuzzing, Result
from tests.rig.fuzz.target import Target
from tests.rig.fuzz.targets import TARGETS
from tests.unit.rig import planted_faults

CASES = 30
DECODER = re.compile(r"(decode|read|open|cut|unpack)(_\w+)?|array_length|tag_of|digest_of|repair_place")
"""Names of functions that take bytes, or text, of others."""
HELPERS = {"app.core.formats.decoding"}
"""Modules whose functions are parts of decoders: they are called with a decoder."""


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_a_target_lets_only_its_declared_errors_out(target: Target) -> None:
    findings = [played.finding for played in (play(target, seed) for seed in range(CASES)) if played.finding]
    assert findings == [], f"make fuzz TARGET={target.name} SEED={findings[0].seed}"


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_a_target_reads_its_samples(target: Target) -> None:
    for sample in target.samples:
        target.read(sample)


def called_by(target: Target) -> set[CodeType]:
    """The functions of the formats that run while the samples are read."""
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            called.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for sample in target.samples:
            target.read(sample)
    finally:
        sys.setprofile(before)
    return called


def decoders() -> dict[str, CodeType]:
    """The decoders of `app.core.formats`, by name."""
    found: dict[str, CodeType] = {}
    for each in pkgutil.iter_modules(app.core.formats.__path__, "app.core.formats."):
        module = importlib.import_module(each.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == each.name and each.name not in HELPERS and DECODER.fullmatch(name):
                found[f"{each.name}.{name}"] = inspect.unwrap(function).__code__
    return found


def test_every_decoder_of_a_format_is_called_by_a_target() -> None:
    called = set().union(*(called_by(target) for target in TARGETS.values() if not target.name.startswith("collector")))
    known = decoders()
    assert len(known) > 15
    assert {name for name, code in known.items() if code not in called} == set()


def test_a_case_is_the_same_whenever_it_is_made_and_never_too_long() -> None:
    target = TARGETS["step_message"]
    cases = [case(target, seed) for seed in range(200)]
    assert cases == [case(target, seed) for seed in range(200)]
    assert len(set(cases)) > 150
    assert max(map(len, cases)) <= LONGEST


def test_shown_bytes_can_be_made_again() -> None:
    short, long = b"\x00abc", b"[" * (SHORT + 1)
    assert base64.b64decode(describe(short).removeprefix("base64 ")) == short
    assert zlib.decompress(base64.b64decode(describe(long).removeprefix("base64 of zlib "))) == long


# --- planted faults


def first_finding(name: str, **options: Any) -> Any:
    target = planted_faults.TARGETS[name]
    return next(found for found in (play(target, seed, **options).finding for seed in range(5000)) if found)


def test_a_planted_key_error_is_found_and_plays_again_from_its_seed() -> None:
    finding = first_finding("missing")
    assert finding.what.startswith("KeyError at planted_faults.py:")
    again = play(planted_faults.TARGETS["missing"], finding.seed).finding
    assert again is not None
    assert (again.what, again.data) == (finding.what, finding.data)


def test_a_reader_that_does_not_end_is_a_finding() -> None:
    assert first_finding("spins", budget_s=0.05).what.startswith("more than 0.05 s of CPU at planted_faults.py:")


def test_a_sound_reader_has_no_finding() -> None:
    assert not any(play(planted_faults.TARGETS["sound"], seed).finding for seed in range(500))


def test_a_run_goes_on_behind_the_case_that_ended_its_process_and_behind_one_that_took_all_memory() -> None:
    targets = {name: planted_faults.TARGETS[name] for name in ("dies", "swallows", "sound")}
    said: list[str] = []

    def found_both_twice(result: Result) -> bool:
        return result.scores["dies"].uncaught > 1 and result.scores["swallows"].uncaught > 1

    fuzzing = Fuzzing(targets, planted_faults.__name__, 0, said.append)
    result = fuzzing.run(float("inf"), until=found_both_twice)
    assert {(target, what.partition(" at ")[0]) for target, what in result.findings} == {
        ("dies", "the process ended: SIGABRT"), ("swallows", "MemoryError"),
    }  # fmt: skip
    assert result.scores["sound"].uncaught == 0
    assert result.scores["sound"].cases > 0
    assert any(line.startswith("FOUND dies, seed ") for line in said)


def test_a_child_that_plays_nothing_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="the child played nothing"):
        Fuzzing(planted_faults.TARGETS, "no_such_catalogue", 0, print).run(float("inf"))
