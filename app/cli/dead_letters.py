"""`instream dead-letters`: the messages that the ETL could not read and set aside."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from app.cli.options import folder, whole
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_json

if TYPE_CHECKING:
    from app.core.formats.dead_letter import Letter
    from app.settings import Settings


async def read_letters(settings: "Settings", most: int) -> "tuple[list[Letter], list[str]]":
    """The last `most` letters of each partition, oldest first, each once; and the place of each message that is no letter.

    Raises:
        ServiceUnavailable: the brokers do not answer.
    """
    from app.adapters.kafka import LogReader  # noqa: PLC0415 - commands load what they need
    from app.core.formats.dead_letter import decode_letter  # noqa: PLC0415
    from app.errors import FormatInvalid, NewerFormat  # noqa: PLC0415
    from app.topics import topics_of  # noqa: PLC0415

    topic, found, unread = topics_of(settings).dead_letters.name, {}, []
    async with LogReader(settings) as logs:
        for partition in range(settings.partitions):
            first, end = await logs.bounds(topic, partition)
            for offset in range(max(first, end - most), end):
                message = await logs.message_at(topic, partition, offset)
                if message is None:
                    continue
                try:
                    letter = decode_letter(message)
                    found[letter.head.partition, letter.head.offset] = letter
                except (FormatInvalid, NewerFormat) as exc:
                    unread.append(f"{topic}[{partition}] {offset}  cannot be shown: {exc}")
    return [found[place] for place in sorted(found)], unread


def dead_letters(
    last: Annotated[int, whole("Letters of each partition to show at most, the newest.", 1, 1_000_000)] = 100,
    save: Annotated[Path | None, typer.Option(help="Write each original message into this folder.", parser=folder)] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the messages that the ETL could not read: the reason, and the place on topic `blocks`.

    Their lines stay missing until the audit's copy of the batch can be read. Exit codes: 0 there are none, 3 there are some.
    """
    letters, unread = asyncio.run(read_letters(settings_to_ask(Asks.KAFKA), last))
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        for head, body in letters:
            (save / f"{head.epoch}-{head.partition}-{head.offset}").write_bytes(body)
    heads: list[dict[str, Any]] = [msgspec.structs.asdict(letter.head) for letter in letters]
    if as_json:
        print_json(heads)
    else:
        for head, _ in letters:
            which = f"batch {head.batch_id} block {head.block} attempt {head.attempt}" if head.batch_id else "no block"
            print(f"blocks-e{head.epoch}[{head.partition}] {head.offset}  {which}, {head.bytes} bytes\n    {head.reason}")
        print(f"{len(letters)} dead letters" if letters else "there are no dead letters")
    for line in unread:
        typer.echo(line, err=True)
    if letters or unread:
        raise typer.Exit(Exit.INCOMPLETE)
