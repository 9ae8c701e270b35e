"""Loads, a copy and a search of many bytes at once, at any place of an array; two instructions that numba lacks.

Nothing here checks a bound, not even under NUMBA_BOUNDSCHECK: the caller guarantees that the bytes exist. An arena has PAD
bytes behind its used part, so that a load may begin at each used byte. Words are little-endian, as the processor reads them.

Each function tells numba its types, and how to write it in LLVM's instructions; only kernels and parts can call it.
"""

from collections.abc import Callable
from typing import Any, Final, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_BYTE: Final = ir.IntType(8)
_HALF: Final = ir.IntType(32)
_WORD: Final = ir.IntType(64)
_WIDE: Final = ir.IntType(128)
_VECTOR: Final = ir.VectorType(_BYTE, 32)
_QUOTE, _BACKSLASH, _SPACE = b'"\\ '


def _instruction(function: Callable[..., Any]) -> Callable[..., int]:
    return cast(Callable[..., int], intrinsic(function))


def _place(context: Any, builder: Any, array: tuple[Any, Any], at: Any, loaded: Any) -> Any:
    """A pointer to `loaded` at byte `at` of an array, given as its type and its value."""
    data = context.make_array(array[0])(context, builder, array[1]).data
    return builder.bitcast(builder.gep(data, [at]), loaded.as_pointer())


@_instruction
def load64(_: Any, array: Any, at: Any) -> Any:
    """The 8 bytes array[at:], as uint64."""

    def write(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        place = _place(context, builder, (signature.args[0], given[0]), given[1], _WORD)
        return builder.load(place, align=1)

    return types.uint64(array, types.intp), write


@_instruction
def load32(_: Any, array: Any, at: Any) -> Any:
    """The 4 bytes array[at:], as uint64."""

    def write(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        place = _place(context, builder, (signature.args[0], given[0]), given[1], _HALF)
        return builder.zext(builder.load(place, align=1), _WORD)

    return types.uint64(array, types.intp), write


@_instruction
def copy32(_: Any, target: Any, to: Any, source: Any, at: Any) -> Any:
    """Copy the 32 bytes source[at:] to target[to:]; both may be one array."""

    def write(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        target_place = _place(context, builder, (signature.args[0], given[0]), given[1], _VECTOR)
        source_place = _place(context, builder, (signature.args[2], given[2]), given[3], _VECTOR)
        builder.store(builder.load(source_place, align=1), target_place, align=1)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), write


@_instruction
def special32(_: Any, array: Any, at: Any) -> Any:
    """Bit n of the uint64: byte at + n, of 32, is a quote, a backslash or a control character below the space."""

    def write(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        found = builder.load(_place(context, builder, (signature.args[0], given[0]), given[1], _VECTOR), align=1)
        special = builder.icmp_unsigned("<", found, ir.Constant(_VECTOR, [_SPACE] * 32))
        for character in (_QUOTE, _BACKSLASH):
            equal = builder.icmp_unsigned("==", found, ir.Constant(_VECTOR, [character] * 32))
            special = builder.or_(special, equal)
        return builder.zext(builder.bitcast(special, _HALF), _WORD)

    return types.uint64(array, types.intp), write


@_instruction
def cttz(_: Any, word: Any) -> Any:
    """The number of the lowest bit that is set in a uint64; 64 if none is."""

    def write(_: Any, builder: Any, __: Any, given: Any) -> Any:
        return builder.cttz(given[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), write


@_instruction
def mulhi(_: Any, left: Any, right: Any) -> Any:
    """The high 64 bits of the product of two uint64."""

    def write(_: Any, builder: Any, __: Any, given: Any) -> Any:
        product = builder.mul(builder.zext(given[0], _WIDE), builder.zext(given[1], _WIDE))
        return builder.trunc(builder.lshr(product, ir.Constant(_WIDE, 64)), _WORD)

    return types.uint64(types.uint64, types.uint64), write
