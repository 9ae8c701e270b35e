"""The stored erasures: a repair makes again what is behind them, never what was before (rule R7)."""

from collections.abc import Collection

from pyroaring import BitMap

from app.adapters.ports import ObjectStore
from app.core.formats.erasure import Erasure, decode_erasure
from app.core.formats.object_keys import ERASURES


async def read_erasures(store: ObjectStore) -> list[Erasure]:
    """Every erasure, the oldest first.

    Raises:
        NewerFormat: a newer version made one of them.
        FormatInvalid: an object below the prefix is none.
        ServiceUnavailable: S3 does not answer.
    """
    keys = [info.key async for info in store.list(ERASURES)]
    return [decode_erasure(await store.get(key)) for key in keys]


async def erased_lines(store: ObjectStore, only: Collection[str] | None = None) -> dict[str, BitMap]:
    """Batch -> its erased lines, of all erasures or of those with the ids `only`.

    Raises: as `read_erasures`.
    """
    found: dict[str, BitMap] = {}
    for erasure in await read_erasures(store):
        if only is None or erasure.erasure_id in only:
            for batch_id, lines in erasure.line_sets().items():
                found[batch_id] = found.get(batch_id, BitMap()) | lines
    return found
