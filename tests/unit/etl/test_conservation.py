"""A step that loses, doubles or invents a line is never made (rule E9)."""

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from app.core.etl import emit, plain, route
from app.core.etl.classify import LineKind
from app.core.etl.conservation import verify_lines, verify_rows
from app.core.etl.ledger import StepLedger, lines_by_batch
from app.core.etl.on_cells import arrivals, path
from app.core.formats.block import BlockHeader
from app.core.formats.source import AcceptedBlock
from app.errors import ConservationBroken
from tests.builders.source_log import batch_id, block, enricher, etl_rules, event, log_of, malformed, second, tick
from tests.worlds.etl_run import Run


def taken(first: int, lines: int, batch: int = 1) -> AcceptedBlock:
    return AcceptedBlock(BlockHeader(1, batch_id(batch), 0, 1, first, lines, 0, 0, 0), 0, b"", 0)


def rows(*lines: int, batch: int = 1) -> pl.DataFrame:
    return pl.DataFrame({"batch_id": [batch_id(batch)] * len(lines), "line": list(lines)})


def ledger(**outcomes: pl.DataFrame) -> StepLedger:
    made = StepLedger()
    for outcome, frame in outcomes.items():
        made.add(frame, outcome)
    return made


def left_open(opened: list[pl.DataFrame]) -> list[tuple[str, list[int]]]:
    return [lines for frame in opened for lines in lines_by_batch(frame).items()]


@pytest.mark.parametrize(("outcomes", "opened", "closed_before"), [
    ({"ad_clicks": rows(3, 4, 5)}, [], 0),
    ({"ad_clicks": rows(3), "rejected": rows(5)}, [rows(4)], 0),
    ({}, [rows(3, 4), rows(5)], 0),
    ({"ad_clicks": rows(3, 4, 5), "page_views": rows(7, batch=2)}, [], 1),
    ({"ad_clicks": rows(3, 4, 5), "page_views": rows(1)}, [], 1),
])  # fmt: skip
def test_every_line_once_is_well(outcomes: dict[str, pl.DataFrame], opened: list[pl.DataFrame], closed_before: int) -> None:
    verify_lines([taken(3, 3)], ledger(**outcomes), left_open(opened), closed_before)


@pytest.mark.parametrize(("outcomes", "opened", "closed_before", "words"), [
    ({"ad_clicks": rows(3, 5)}, [], 0, "1 lines are in neither ledger nor window, first 4"),
    ({"ad_clicks": rows(3, 5)}, [], 1, "first 4"),
    ({"ad_clicks": rows(3, 4, 5), "rejected": rows(4)}, [], 0, "two outcomes"),
    ({"ad_clicks": rows(3, 4, 5)}, [rows(5)], 0, "two outcomes"),
    ({"ad_clicks": rows(3, 4)}, [rows(5, 5)], 0, "two outcomes"),
    ({"ad_clicks": rows(3, 4, 5, 6)}, [], 0, "4 lines have an outcome, but 3 were taken"),
    ({"ad_clicks": rows(3, 4, 5)}, [rows(0, batch=2)], 0, "4 lines have an outcome"),
    ({"ad_clicks": rows(3, 4, 5)}, [], 2, "2 closed out of the window"),
    ({}, [], 0, "3 lines are in neither"),
])  # fmt: skip
def test_a_line_too_few_or_too_many_is_found(
    outcomes: dict[str, pl.DataFrame], opened: list[pl.DataFrame], closed_before: int, words: str
) -> None:
    with pytest.raises(ConservationBroken, match=words):
        verify_lines([taken(3, 3)], ledger(**outcomes), left_open(opened), closed_before)


def test_rows_and_ledger_say_the_same() -> None:
    made = ledger(ad_clicks=rows(0, 1), joined=rows(2), duplicate=rows(3, 4))
    verify_rows(made, {"ad_clicks": 2}, joined=1, dropped={"duplicate": 2})
    for wrong in (
        {"rows": {"ad_clicks": 1}, "joined": 1, "dropped": {"duplicate": 2}},
        {"rows": {"ad_clicks": 2, "redirects": 1}, "joined": 1, "dropped": {"duplicate": 2}},
        {"rows": {}, "joined": 1, "dropped": {"duplicate": 2}},
        {"rows": {"ad_clicks": 2}, "joined": 0, "dropped": {"duplicate": 2}},
        {"rows": {"ad_clicks": 2}, "joined": 1, "dropped": {"duplicate": 3}},
        {"rows": {"ad_clicks": 2}, "joined": 1, "dropped": {"duplicate": 2, "erased": 1}},
    ):
        with pytest.raises(ConservationBroken, match="differ"):
            verify_rows(made, **wrong)  # type: ignore[arg-type]


# --- defects, planted in the core


def forgets(name: str, change: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(plain, name)
        monkeypatch.setattr(plain, name, lambda *given, **named: change(real(*given, **named)))

    return plant


def without_kind(kind: int) -> Callable[[pytest.MonkeyPatch], None]:
    """As if a branch of the routing were forgotten: neither rows nor an outcome."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        real = route.sort_lines

        def forgetful(*given: Any, **named: Any) -> Any:
            lines = real(*given, **named)
            return lines._replace(positions={code: at for code, at in lines.positions.items() if code != kind})

        monkeypatch.setattr(route, "sort_lines", forgetful)

    return plant


LINES = (
    event("f", at_s=0), second("s", view="v2", at_s=0), event("a", "ad_click"), event("a", "ad_click"), malformed(),
    event("bot", "ad_click", webdriver=True), event("r", "redirect", view=None),
    malformed("erased", "0"),
)  # fmt: skip


@pytest.mark.parametrize("plant", [
    *[without_kind(kind) for kind in (*LineKind, LineKind.EMITTED + 1, LineKind.EMITTED + 2) if kind != LineKind.EMITTED],
    forgets("route_lines", lambda routed: routed._replace(outcomes=routed.outcomes[1:])),
    forgets("route_lines", lambda routed: routed._replace(rows=routed.rows[1:])),
    forgets("left_open", lambda opened: opened._replace(first_events=None)),
    forgets("left_open", lambda opened: opened._replace(second_events=None)),
    forgets("emit", lambda emission: emission._replace(rows={})),
])  # fmt: skip
def test_a_branch_that_is_forgotten_ends_the_step_and_not_the_line(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    run = Run(etl_rules(), enricher())
    with pytest.raises(ConservationBroken):
        run.step(log_of([tick(s=0), block(*LINES)]))


def forgets_on_cells(name: str, change: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(path, name)
        monkeypatch.setattr(path, name, lambda *given, **named: change(real(*given, **named)))

    return plant


def without_code(code: int) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        real = arrivals.by_code
        monkeypatch.setattr(arrivals, "by_code", lambda codes: {c: at for c, at in real(codes).items() if c != code})

    return plant


@pytest.mark.parametrize("plant", [
    *[without_code(kind) for kind in (*LineKind, LineKind.EMITTED + 1, LineKind.EMITTED + 2) if kind != LineKind.EMITTED],
    forgets_on_cells("route_cells", lambda arrived: arrived._replace(outcomes=arrived.outcomes[1:])),
    forgets_on_cells("route_cells", lambda arrived: arrived._replace(rows=arrived.rows[1:])),
    forgets_on_cells("emit_cells", lambda emission: emission._replace(rows={})),
])  # fmt: skip
def test_neither_does_the_path_on_cells(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    run = Run(etl_rules(kernels=True), enricher())
    with pytest.raises(ConservationBroken):
        run.step(log_of([tick(s=0), block(*LINES)]))


def test_what_closes_out_of_the_window_is_accounted_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(etl_rules(), enricher()).feed(log_of([tick(s=0), block(*LINES)]))
    real = emit.StepLedger.add

    def forgetful(self: StepLedger, frame: pl.DataFrame, outcome: str) -> None:
        if outcome != "page_views":
            real(self, frame, outcome)

    monkeypatch.setattr(emit.StepLedger, "add", forgetful)
    with pytest.raises(ConservationBroken, match="closed out of the window"):
        run.feed(log_of([tick(s=300)], first=2))
