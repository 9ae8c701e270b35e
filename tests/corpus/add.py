"""Write the samples that are missing: `python -m tests.corpus.add [FORMAT ...]`."""

import sys

from tests.corpus.formats import FORMATS
from tests.corpus.plain import plain
from tests.corpus.samples import Sample, read_samples, write_sample


def main(names: list[str]) -> None:
    """Write a sample of today's version of each format that has none."""
    there = {(sample.format, sample.version) for sample in read_samples() if ":" not in sample.about}
    for name in names or FORMATS:
        made = FORMATS[name]
        if made.write is not None and (name, made.version) not in there:
            data = made.write()
            value = plain(made.value_in(data, made.version))
            path = write_sample(Sample(name, made.version, "the fixed values", data, value))
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
