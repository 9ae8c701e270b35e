"""`make boards`: write Grafana's pages into compose/grafana/dashboards, from the boards of this folder."""

import json
from pathlib import Path
from typing import Any, Final

from app.local.boards.board import render
from app.local.boards.overview import OVERVIEW
from app.local.boards.roles import ROLE_BOARDS

FOLDER: Final = Path(__file__).parents[3] / "compose" / "grafana" / "dashboards"
BOARDS: Final = (OVERVIEW, *ROLE_BOARDS)


def files() -> dict[str, str]:
    """Each page's file name -> its content: a line for each panel, so that a change shows which one it is."""
    return {f"{board.uid.removeprefix('instream-')}.json": _text_of(render(board)) for board in BOARDS}


def _text_of(page: dict[str, Any]) -> str:
    panels = ",\n".join(f"  {json.dumps(panel)}" for panel in page["panels"])
    head = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in page.items() if name != "panels"]
    return "{\n" + ",\n".join([*head, f' "panels": [\n{panels}\n ]']) + "\n}\n"


def main() -> None:
    """Write every page, and remove pages that no board makes."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name, text in files().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
