"""Loads by address, for buffers that belong to others and have no padding; stores of words at any place of an array.

Nothing here checks a bound, not even under NUMBA_BOUNDSCHECK: the caller guarantees that the bytes exist, and that their
owner lives. No load reaches outside the bytes that it names. Words are little-endian, as the processor reads them.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from app.kernels.cells import Bytes
from app.kernels.compiled import part

_WORD: Final = ir.IntType(64)
_VECTOR: Final = ir.VectorType(ir.IntType(8), 32)
_WIDE_BYTES: Final = 32
_WORD_BYTES: Final = 8
Typed = TypeVar("Typed", bound=Callable[..., Any])


def _instruction(function: Typed) -> Callable[..., Any]:
    return cast(Callable[..., Any], intrinsic(function))


def _load(builder: Any, address: Any, loaded: Any) -> Any:
    return builder.load(builder.inttoptr(address, loaded.as_pointer()), align=1)


def _store(context: Any, builder: Any, array: tuple[Any, Any], to: Any, value: Any) -> None:
    data = context.make_array(array[0])(context, builder, array[1]).data
    builder.store(value, builder.bitcast(builder.gep(data, [to]), value.type.as_pointer()), align=1)


@_instruction
def byte_at(_: Any, address: Any) -> Any:
    """The byte at an address, as int64."""

    def write(_: Any, builder: Any, __: Any, given: Any) -> Any:
        return builder.zext(_load(builder, given[0], ir.IntType(8)), _WORD)

    return types.int64(types.int64), write


@_instruction
def half_at(_: Any, address: Any) -> Any:
    """The int32 at an address, as int64."""

    def write(_: Any, builder: Any, __: Any, given: Any) -> Any:
        return builder.sext(_load(builder, given[0], ir.IntType(32)), _WORD)

    return types.int64(types.int64), write


@_instruction
def word_at(_: Any, address: Any) -> Any:
    """The int64 at an address."""

    def write(_: Any, builder: Any, __: Any, given: Any) -> Any:
        return _load(builder, given[0], _WORD)

    return types.int64(types.int64), write


@_instruction
def _copy_word(_: Any, target: Any, to: Any, address: Any) -> Any:
    """Copy 8 bytes from an address to target[to:]."""

    def write(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        _store(context, builder, (signature.args[0], given[0]), given[1], _load(builder, given[2], _WORD))
        return context.get_dummy_value()

    return types.void(target, types.intp, types.int64), write


@_instruction
def _copy_wide(_: Any, target: Any, to: Any, address: Any) -> Any:
    """Copy 32 bytes from an address to target[to:]."""

    def write(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        _store(context, builder, (signature.args[0], given[0]), given[1], _load(builder, given[2], _VECTOR))
        return context.get_dummy_value()

    return types.void(target, types.intp, types.int64), write


@part
def copy_from(target: Bytes, to: int, address: int, size: int) -> None:
    """Copy `size` bytes from an address to target[to:], and touch nothing else: the last step overlaps the one before it."""
    done = 0
    if size >= _WIDE_BYTES:
        while done < size - _WIDE_BYTES:
            _copy_wide(target, to + done, address + done)
            done += _WIDE_BYTES
        _copy_wide(target, to + size - _WIDE_BYTES, address + size - _WIDE_BYTES)
    elif size >= _WORD_BYTES:
        while done < size - _WORD_BYTES:
            _copy_word(target, to + done, address + done)
            done += _WORD_BYTES
        _copy_word(target, to + size - _WORD_BYTES, address + size - _WORD_BYTES)
    else:
        while done < size:
            target[to + done] = byte_at(address + done)
            done += 1
