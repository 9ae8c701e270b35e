"""What writes the files of flows: compiled kernels, or polars and fastavro."""

from app.core.formats import flow_files, kernel_files
from app.core.formats.flow_files import EncodeStreams
from app.settings import Settings


def encoder(settings: Settings) -> EncodeStreams:
    """What writes the files of flows, by `settings`; the bytes are the same.

    Kernels are compiled, or read from the cache, when this module is imported: before the worker joins its group.
    """
    return kernel_files.encode_streams if settings.kernels else flow_files.encode_streams
