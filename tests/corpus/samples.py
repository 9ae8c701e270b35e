"""The samples: a file each, JSON."""

import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "samples"
_WIDTH = 96


class Sample(NamedTuple):
    """Bytes that a version of a format wrote once, and the value that they mean for ever."""

    format: str
    version: int
    about: str
    """What is special about it."""
    data: bytes
    value: Any

    @property
    def file(self) -> str:
        """The name of its file."""
        variant = f"-{self.about.split(':')[0]}" if ":" in self.about else ""
        return f"{self.format}.v{self.version}{variant}.json"


def read_samples() -> list[Sample]:
    """Every sample, by name."""
    return [_read(path) for path in sorted(FOLDER.glob("*.json"))]


def _read(path: Path) -> Sample:
    told = json.loads(path.read_text())
    data = told["text"].encode() if "text" in told else bytes.fromhex("".join(told["hex"]))
    sample = Sample(told["format"], told["version"], told["about"], data, told["value"])
    if sample.file != path.name:
        raise ValueError(f"{path.name} holds the sample {sample.file}")
    return sample


def write_sample(sample: Sample) -> Path:
    """Put a new sample into its file.

    Raises:
        FileExistsError: there is one; a sample is never changed.
    """
    FOLDER.mkdir(exist_ok=True)
    told: dict[str, Any] = {"format": sample.format, "version": sample.version, "about": sample.about}
    if sample.data.isascii() and sample.data.decode().isprintable():
        told["text"] = sample.data.decode()
    else:
        text = sample.data.hex()
        told["hex"] = [text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)]
    told["value"] = sample.value
    path = FOLDER / sample.file
    with path.open("x") as file:
        file.write(json.dumps(told, ensure_ascii=False, indent=1) + "\n")
    return path
