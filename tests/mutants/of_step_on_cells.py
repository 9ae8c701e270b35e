"""Bugs planted in the path of a step on cells, and in the kernels that gather its rows (rules J1, J5, E9, E10)."""

from tests.mutants.mutant import Mutant

PATHS = ("tests/property/test_two_paths.py",)
GATHER = ("tests/unit/kernels/test_gather.py",)
ENRICH = ("tests/unit/enrich/test_enrich_cells.py",)
STREAM = ("tests/unit/formats/test_arrow_stream.py",)
CONSERVATION = ("tests/unit/etl/test_conservation.py",)

MUTANTS = (
    Mutant(
        "a gathered text that is absent counts as there",
        "J1",
        "app/kernels/gather.py",
        "                at += cell & LEN_MASK\n                validity[i, k >> 3] |= 1 << (k & 7)\n            else:\n",
        "                at += cell & LEN_MASK\n                validity[i, k >> 3] |= 1 << (k & 7)\n            else:\n"
        "                validity[i, k >> 3] |= 1 << (k & 7)\n",
        GATHER,
    ),
    Mutant(
        "lines are equal if their texts begin alike",
        "J5",
        "app/kernels/distinct.py",
        "        if not are_texts[i] or size != rival & LEN_MASK:\n",
        "        if not are_texts[i]:\n",
        GATHER,
    ),
    Mutant(
        "an encoded value of a tag is cut out as it is written",
        "J5",
        "app/kernels/addresses.py",
        "                if size > limits[number] or not _is_plain_value(arena, behind + 1, stop):\n",
        "                if size > limits[number]:\n",
        ENRICH,
    ),
    Mutant(
        "of several values of a tag the last one counts",
        "J5",
        "app/kernels/addresses.py",
        "                if have[k] & bit == uint64(0):  # the first one counts\n",
        "                if True:\n",
        ENRICH,
    ),
    Mutant(
        "parameters behind the number sign are passed over",
        "J5",
        "app/kernels/addresses.py",
        "        if not is_regular or _has_parameters(arena, fragment, end):\n",
        "        if not is_regular:\n",
        ENRICH,
    ),
    Mutant(
        "a referrer without a host shares the answer of a host with its name",
        "J5",
        "app/core/enrich/enrich_cells.py",
        "    have[rows] |= np.uint64(1 << _CAME | 1 << _WHOLE)  # the third text is empty, and there\n",
        "    have[rows] |= np.uint64(1 << _CAME)\n",
        ENRICH,
    ),
    Mutant(
        "the campaign in the URL goes before the event's own",
        "J5",
        "app/core/enrich/enrich_cells.py",
        "        _prefer_own(owns, cells, have)\n",
        "        pass\n",
        ENRICH,
    ),
    Mutant(
        "the offsets of stacked texts begin anew",
        "J1",
        "app/core/formats/arrow_stream.py",
        "part.offsets[1:] + at)\n",
        "part.offsets[1:])\n",
        STREAM,
    ),
    Mutant(
        "a step on cells is sent without its lines being accounted for",
        "E9",
        "app/core/etl/on_cells/emission.py",
        "        verify_lines(blocks, self.ledger, left_open, closing.closed_before)\n",
        "",
        CONSERVATION,
    ),
    Mutant(
        "the rows of a waiting frame are those of the first frame",
        "J2",
        "app/core/etl/on_cells/waiting_cells.py",
        "np.where(rows >= 0, starts[place] + rows, rows))\n",
        "rows)\n",
        PATHS,
    ),
    Mutant(
        "the reason of an engagement is always the first one",
        "J3",
        "app/core/etl/on_cells/emission.py",
        "engagement_frame(held, REASONS, closing.reasons, enricher))\n",
        "engagement_frame(held, REASONS, 0 * closing.reasons, enricher))\n",
        PATHS,
    ),
    Mutant(
        "a line of a collector without key kinds keeps its user agent",
        "E10",
        "app/core/etl/on_cells/line_columns.py",
        "np.where(has_key, positions, NO_LINE))\n",
        "positions)\n",
        PATHS,
    ),
)
