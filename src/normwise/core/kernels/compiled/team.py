"""Torch's own threads for our loops: a range shared by the OpenMP team that torch's operators run on.

A pool of other threads would have to wait for torch's, which keep spinning for some milliseconds after each operator.
Compiled code calls `GOMP_parallel`, of the library that torch is linked with, so that there is one team only. It does
not survive a fork: a child process, or a system with another OpenMP, shares work by a pool of threads.

A loop is called by its address, with one thread or many: a copy compiled into its caller would round in its own way.
"""
# pyright: basic, reportUntypedFunctionDecorator=false

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.callconv import RETCODE_NONE, RETCODE_OK
from numba.extending import intrinsic
from numpy.typing import NDArray

from normwise.core.kernels.compiled.loop import loop

Array = NDArray[Any]
SHARED = 1 << 16  # values from which on threads share the work
_NEEDED = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
_WORD, _INT, _BYTES = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
_forked = False


def share(
    function: Callable[..., None], kind: str, extent: int, values: Array, arguments: tuple[Any, ...], least: int = 1
) -> None:
    """Call a compiled `function(low, high, *arguments)` on `[0, extent)`, in parts if there are many values.

    arguments: arrays, plain numbers and tuples of them. kind: see `address`. least: the extent of a part that is worth a
    thread. Raises `MemoryError` if a part cannot get the memory it needs.
    """
    threads = min(torch.get_num_threads(), max(1, extent // least)) if values.size >= SHARED else 1
    place, places = address(function, kind, values, arguments), _places()
    if threads <= 1:
        well = _call(place, 0, extent, arguments)
    elif places is not None and not _forked:
        well = _call_together(place, extent, threads, places, arguments)
    else:
        edges, pool = [extent * part // threads for part in range(threads + 1)], _pool(os.getpid(), threads)
        parts = [pool.submit(_call, place, low, high, arguments) for low, high in pairwise(edges)]
        well = all([part.result() for part in parts])
    if not well:
        raise MemoryError("x: a loop over it ran out of memory; use a smaller batch")


def address(function: Any, kind: str, values: Array, arguments: tuple[Any, ...]) -> int:
    """Return where a function's machine code is, compiled or read from disk when first needed.

    The types of its arguments must follow from those of the values and, where it takes more than one set, from `kind`:
    machine code called with others reads what is not there. Tests check it at every call.
    """
    key = function, kind, values.dtype
    if key not in addresses:
        signature = types_of(arguments)
        function.compile(signature)
        compiled = function.overloads[signature]
        addresses[key] = compiled.library.get_pointer_to_function(compiled.fndesc.mangled_name), signature
    return addresses[key][0]


def types_of(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the types that `function(low, high, *arguments)` is compiled for."""
    return tuple(map(numba.typeof, (0, 0, *arguments)))


addresses: dict[tuple[Any, ...], tuple[int, tuple[Any, ...]]] = {}


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@lru_cache(maxsize=1)
def _places() -> tuple[int, int, int] | None:
    """Return where the functions of torch's OpenMP library are, None where it is not GNU's."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        found = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in _NEEDED]
    except (OSError, AttributeError):
        return None
    return None if None in found else tuple(found)  # pyright: ignore[reportReturnType]


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return the threads of this process: after a fork those of the parent do not exist."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"normwise-{process}")


# --- compiled


_intrinsic: Any = intrinsic  # as typed, its result lacks the first parameter


@loop
def _call(place, low, high, arguments):
    return call(place, low, high, arguments)


@loop
def _call_together(place, extent, threads, places, arguments):
    return call_together(place, extent, threads, places, arguments)


@_intrinsic
def call(typing_context, address, low, high, arguments):
    """Call the loop at an address on `[low, high)`; return whether all went well."""

    def generate(context, builder, signature, values):
        address, low, high, arguments = values
        given = [low, high, *_unowned(context, builder, signature.args[3], arguments)]
        return builder.not_(_emit(context, builder, signature.args[3], address, given))

    return types.boolean(types.intp, types.intp, types.intp, arguments), generate


@_intrinsic
def call_together(typing_context, address, extent, threads, places, arguments):
    """Call the loop at an address on parts of `[0, extent)`, a part a thread; return whether all went well.

    places: as `_places` gives them. Parts follow each other in the order of the threads.
    """

    def generate(context, builder, signature, values):
        address, extent, threads, places, arguments = values
        parallel, who, many = cgutils.unpack_tuple(builder, places)
        given = _unowned(context, builder, signature.args[4], arguments)
        entries = [ir.Constant(_WORD, 0), address, extent, who, many, *given]
        task = ir.LiteralStructType([entry.type for entry in entries])
        body = _body(context, builder.module, signature.args[4], task)

        data = cgutils.alloca_once(builder, task)
        for number, entry in enumerate(entries):
            builder.store(entry, cgutils.gep_inbounds(builder, data, 0, number))
        start = ir.FunctionType(ir.VoidType(), [body.type, _BYTES, _INT, _INT])
        count = builder.trunc(threads, _INT)
        given = [body, builder.bitcast(data, _BYTES), count, ir.Constant(_INT, 0)]
        builder.call(builder.inttoptr(parallel, start.as_pointer()), given)
        failures = builder.load(cgutils.gep_inbounds(builder, data, 0, 0))
        return builder.icmp_signed("==", failures, ir.Constant(_WORD, 0))

    return types.boolean(types.intp, types.intp, types.intp, places, arguments), generate


def _unowned(context, builder, arguments, value):
    """Return arguments with arrays that count no references: threads would contend for the counters at every slice."""
    values = cgutils.unpack_tuple(builder, value)
    for number, (kind, value) in enumerate(zip(arguments.types, values, strict=True)):
        if isinstance(kind, types.BaseTuple):
            values[number] = (
                cgutils.pack_array(builder, _unowned(context, builder, kind, value))
                if isinstance(kind, types.UniTuple)
                else cgutils.pack_struct(builder, _unowned(context, builder, kind, value))
            )
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, value)
            for owner in ("meminfo", "parent"):
                setattr(array, owner, ir.Constant(getattr(array, owner).type, None))
            values[number] = array._getvalue()
    return values


def _body(context, module, arguments, task):
    """Return `void body(void *data)`, one thread's part of a task: failures, address, extent, who, how many, arguments."""
    body = ir.Function(module, ir.FunctionType(ir.VoidType(), [_BYTES]), module.get_unique_name("part_of_team"))
    body.linkage = "internal"
    builder = ir.IRBuilder(body.append_basic_block())
    data = builder.bitcast(body.args[0], task.as_pointer())
    entries = [builder.load(cgutils.gep_inbounds(builder, data, 0, number)) for number in range(len(task.elements))]
    _, address, extent, *ask = entries[:5]
    function = ir.FunctionType(_INT, []).as_pointer()
    who, many = (builder.sext(builder.call(builder.inttoptr(place, function), []), _WORD) for place in ask)
    low = builder.sdiv(builder.mul(extent, who), many)
    high = builder.sdiv(builder.mul(extent, builder.add(who, ir.Constant(_WORD, 1))), many)
    with builder.if_then(_emit(context, builder, arguments, address, [low, high, *entries[5:]])):
        builder.store(ir.Constant(_WORD, 1), cgutils.gep_inbounds(builder, data, 0, 0))
    builder.ret_void()
    return body


def _emit(context, builder, arguments, address, given):
    """Write a call of the loop at an address, as numba calls its functions; return whether it failed."""
    kinds, convention = (types.intp, types.intp, *arguments.types), context.call_conv
    function = convention.get_function_type(types.none, kinds)
    slots = [cgutils.alloca_once(builder, slot.pointee) for slot in function.args[:2]]  # its result, its exception
    for slot in slots:
        builder.store(ir.Constant(slot.type.pointee, None), slot)
    packed = context.get_arg_packer(kinds).as_arguments(builder, given)
    code = builder.call(builder.inttoptr(address, function.as_pointer()), [*slots, *packed])
    unlike = (builder.icmp_signed("!=", code, fine) for fine in (RETCODE_OK, RETCODE_NONE))
    return builder.and_(*unlike)
