"""The arrival of first and second events: which first event joins, and which second events are late at once."""

from app.kernels.cells import Ints
from app.kernels.compiled import kernel
from app.kernels.join.layout import (
    BROUGHT,
    FIRST,
    FIRST_RECEIVED,
    HEAD,
    NEXT,
    NONE,
    RECEIVED,
    STORED,
    VIEW,
    precedes,
)


@kernel(
    "int64(int64[:, ::1], int64[:, ::1], int64, int64[:, ::1], int64[::1], int64[::1], int64[::1], int64[::1],"
    " int64, int64, int64[::1])"
)
def admit_events(
    events: Ints,
    own: Ints,
    head: int,
    step_views: Ints,
    first_blocks: Ints,
    second_blocks: Ints,
    now: Ints,
    stored: Ints,
    span: int,
    memory: int,
    late: Ints,
) -> int:
    """Take new events block by block; a block's first events arrive before its second events.

    Args:
        events: the events of the window.
        own: first events, then second events, each in log order; behind them what `step_views` names besides. Column NEXT
            of second events is written: those that wait form a chain for each page view.
        head: the first slot of `own`.
        step_views: the page views of the step, each with its joining first event (NONE: none is known); written.
        first_blocks: int64[firsts], ascending, the block of each first event.
        second_blocks: int64[seconds], likewise.
        now: int64[blocks], stream time at each block, ms.
        stored: int64[blocks], the time that state remembers for each block's page views.
        span: a second event is late behind its first event's time of receipt by more than this, ms.
        memory: a page view that state has stored longer ago is forgotten, unless its first event is in the window.
        late: int64[seconds], written: the places of second events that are late.

    Returns: how many are late.
    """
    first = second = count = 0
    for block in range(len(now)):
        oldest = max(0, now[block] - memory)
        while first < len(first_blocks) and first_blocks[first] == block:
            view = own[first, VIEW]
            joining = step_views[view, FIRST]
            since = max(stored[block], own[first, RECEIVED])
            joins = joining == NONE or step_views[view, STORED] < oldest
            if not joins and precedes(events, own, head, head + first, joining):
                joins = step_views[view, BROUGHT] == block or now[block] <= step_views[view, FIRST_RECEIVED] + span
                since = max(since, step_views[view, STORED])
            if joins:
                step_views[view, FIRST] = head + first
                step_views[view, FIRST_RECEIVED] = own[first, RECEIVED]
                step_views[view, STORED] = since
                step_views[view, BROUGHT] = block
            first += 1
        while second < len(second_blocks) and second_blocks[second] == block:
            row = len(first_blocks) + second
            view = own[row, VIEW]
            upper = step_views[view, FIRST_RECEIVED] + span
            joining = step_views[view, FIRST]
            known = joining != NONE and (joining < head or step_views[view, STORED] >= oldest)
            behind = own[row, RECEIVED] > upper or (now[block] > upper and step_views[view, BROUGHT] != block)
            if known and behind:
                late[count] = second
                count += 1
            else:
                own[row, NEXT] = step_views[view, HEAD]
                step_views[view, HEAD] = head + row
            second += 1
    return count
