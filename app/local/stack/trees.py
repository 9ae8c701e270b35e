"""Which code each process of a stack runs: trees.json in HOME, the name of a process -> the folder of a code tree.

A process that the file does not name runs the supervisor's own code. The file counts from a process's next start on: to
upgrade a role, replace the file and end the role's process; the supervisor starts it again from the other tree. All trees
share one .venv. PYTHONPATH leads Python to the tree before it looks where the package is installed, and the page /metrics
(`instream_code_info`) says which folder the running code came from.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from app.errors import LocalStackError
from app.local.stack.life import replace_file

FILE: Final = "trees.json"
INIT: Final = "init"
"""The name under which the warehouse's first schema is made."""


class Trees:
    """The code trees of the stack in one HOME."""

    def __init__(self, home: Path) -> None:
        """Read and write the trees of the stack in `home`; the file is read anew at every question."""
        self._file = home / FILE

    def replace(self, trees: Mapping[str, Path]) -> None:
        """Let these processes start from these trees from now on, and all others from the supervisor's.

        Raises:
            LocalStackError: a folder has no code of ours in it; the file stays as it was.
        """
        for name, folder in trees.items():
            if not (folder / "app" / "__init__.py").is_file():
                raise LocalStackError(f"{folder} is no code tree for {name}: it has no app/__init__.py")
        content = {name: str(folder.absolute()) for name, folder in trees.items()}
        replace_file(self._file, msgspec.json.format(msgspec.json.encode(content)))

    def read(self) -> dict[str, Path]:
        """Process -> the folder of its tree.

        Raises:
            LocalStackError: the file is damaged.
        """
        try:
            found = msgspec.json.decode(self._file.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except msgspec.DecodeError as exc:
            raise LocalStackError(f"{self._file} cannot be read ({exc}): write it anew or remove it") from exc
        return {name: Path(folder) for name, folder in found.items()}

    def variables(self, name: str) -> dict[str, str]:
        """The variables with which a process runs the code of its tree; none for the supervisor's own.

        Raises:
            LocalStackError: as `read`.
        """
        folder = self.read().get(name)
        return {} if folder is None else {"PYTHONPATH": str(folder)}
