"""Bugs in the kernels that write the files of flows, and in what puts Avro files together (invariant I1, rule R4)."""

from tests.mutants.mutant import Mutant

TSV = ("tests/unit/kernels/test_tsv.py",)
AVRO = ("tests/unit/kernels/test_avro.py",)
CELLS = ("tests/unit/kernels/test_arrow_cells.py", "tests/unit/kernels/test_memory.py")
CONTAINER = ("tests/unit/formats/test_avro_file.py",)
WHOLE = ("tests/property/test_kernel_files.py",)

MUTANTS = (
    Mutant(
        "a field with CR is not quoted",
        "I1",
        "app/kernels/tsv.py",
        " or character == _LF or character == _CR:",
        " or character == _LF:",
        TSV,
    ),
    Mutant(
        "a quote behind the first 32 bytes of a text is not seen",
        "I1",
        "app/kernels/tsv.py",
        "        if found == uint64(0):\n            place += 32\n            continue\n",
        "        if found == uint64(0):\n            return False\n",
        TSV,
    ),
    Mutant(
        "the last digit of the milliseconds is lost",
        "I1",
        "app/kernels/tsv.py",
        "_put_two(out, to + 22, of_day % 10 * 10)",
        "_put_two(out, to + 22, 0)",
        TSV,
    ),
    Mutant(
        "a year that is no leap year has a 29th of February",
        "I1",
        "app/kernels/tsv.py",
        " + of_era // 36_524 - of_era // 146_096) // 365",
        " - of_era // 146_096) // 365",
        TSV,
    ),
    Mutant(
        "a time beyond the year 9999 is written",
        "I1",
        "app/kernels/tsv.py",
        "                if cell < FIRST_MS or cell > LAST_MS:",
        "                if cell < FIRST_MS:",
        TSV,
    ),
    Mutant(
        "the least integer loses its sign",
        "I1",
        "app/kernels/tsv.py",
        "        rest = uint64(0) - rest  # -2**63 has no int64 without its sign\n",
        "        rest = uint64(max(value, -(2**63 - 1)) * -1)\n",
        TSV,
    ),
    Mutant(
        "Avro has an empty text where COPY wants NULL",
        "I1",
        "app/kernels/avro.py",
        " == uint64(0) or (kind == TEXT and size == 0):",
        " == uint64(0):",
        AVRO,
    ),
    Mutant(
        "a long of 7 bits takes two bytes less than it needs",
        "I1",
        "app/kernels/avro.py",
        "    while rest >= uint64(128):",
        "    while rest > uint64(128):",
        AVRO,
    ),
    Mutant(
        "an Avro block says the length that it had before it was packed",
        "I1",
        "app/core/formats/avro_file.py",
        "_long(len(body)), body, marker)",
        "_long(end - start), body, marker)",
        CONTAINER,
    ),
    Mutant(
        "an Avro block counts a record too few",
        "I1",
        "app/core/formats/avro_file.py",
        "_long(last + 1 - first)",
        "_long(last - first)",
        CONTAINER,
    ),
    Mutant(
        "a bit of a column of NULLs is taken from the next row",
        "I1",
        "app/kernels/arrow_cells.py",
        "            if validity != 0 and _bit(validity, place) == 0:",
        "            if validity != 0 and _bit(validity, place + 1) == 0:",
        CELLS,
    ),
    Mutant(
        "a piece of a frame begins at the frame's first row",
        "I1",
        "app/kernels/arrow_cells.py",
        "            place = column[SKIPPED] + first + row\n",
        "            place = column[SKIPPED] + row\n",
        CELLS,
    ),
    Mutant(
        "a text of twelve bytes is looked for in the buffers",
        "I1",
        "app/kernels/arrow_cells.py",
        "    if 0 <= size <= _INLINE:",
        "    if 0 <= size < _INLINE:",
        CELLS,
    ),
    Mutant(
        "a text that ends outside its buffer is read",
        "E8",
        "app/kernels/arrow_cells.py",
        "    if offset + size > word_at(column[SIZES] + 8 * buffer):",
        "    if offset > word_at(column[SIZES] + 8 * buffer):",
        CELLS,
    ),
    Mutant(
        "the bytes of a text behind the last whole word are not copied",
        "I1",
        "app/kernels/memory.py",
        "        _copy_word(target, to + size - _WORD_BYTES, address + size - _WORD_BYTES)\n",
        "        _copy_word(target, to + done, address + done)\n",
        CELLS,
    ),
    Mutant(
        "rows that kernels do not take are left out",
        "I1",
        "app/core/formats/kernel_files.py",
        "        if size == tsv.DOUBT:\n            raise _Doubt\n",
        "        size = max(size, 0)\n",
        WHOLE,
    ),
    Mutant(
        "rows behind the first piece of a step are left out",
        "I1",
        "app/core/formats/kernel_files.py",
        "            for first in range(0, height, _ROWS_AT_ONCE):",
        "            for first in range(0, min(height, _ROWS_AT_ONCE), _ROWS_AT_ONCE):",
        WHOLE,
    ),
)
