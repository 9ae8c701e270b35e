"""Lines grouped by their partition with a kernel."""

from collections.abc import Sequence

import numpy as np

from app.core.formats.stored_line import Counts, PackedLines
from app.kernels.group import group_lines


def group_by_kernel(requests: Sequence[PackedLines], partitions: Counts, places: Counts) -> memoryview:
    """A `Group` of `app.core.formats.batch`: the answer is that of `group_plainly`."""
    grouped = np.empty(sum(len(request.text) for request in requests), np.uint8)
    free, first = places.copy(), 0
    for request in requests:
        behind = first + request.line_count
        text = np.frombuffer(request.text, np.uint8)
        group_lines(text, request.sizes, partitions[first:behind], free, grouped)
        first = behind
    return grouped.data
