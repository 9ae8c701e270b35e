"""Every target, by name."""

from typing import Final

from tests.rig.fuzz import of_cells, of_collector, of_formats, of_lines, of_redshift
from tests.rig.fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for part in (of_formats, of_lines, of_cells, of_redshift, of_collector)
    for target in part.TARGETS
}  # fmt: skip
