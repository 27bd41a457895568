"""The operations of ``maps.circular``, for queues and stacks."""

# ruff: noqa: F821  (the numbers of a map are known when it is compiled)
# mypy: disable-error-code="name-defined, no-any-return"

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import copy, u32, zero

TAIL = 4
VALUES_OFF = 64
ENOENT = 2
E2BIG = 7
EINVAL = 22


def after(m: int, at: int) -> int:
    return 0 if at + 1 == SIZE else at + 1


def push(m: int, value: int, flags: int) -> int:
    if flags != 0 and flags != 2:
        return -EINVAL
    head = u32[m]
    following = after(m, head)
    if following == u32[m + TAIL]:
        if not flags:
            return -E2BIG
        u32[m + TAIL] = after(m, u32[m + TAIL])
    copy(m + VALUES_OFF + head * ELEM_SIZE, value, VALUE_SIZE)
    u32[m] = following
    return 0


def newest(m: int) -> int:
    return (u32[m] if u32[m] else SIZE) - 1


def peek(m: int, value: int) -> int:
    if u32[m] == u32[m + TAIL]:
        zero(value, VALUE_SIZE)
        return -ENOENT
    slot = newest(m) if TAKES_NEWEST else u32[m + TAIL]
    copy(value, m + VALUES_OFF + slot * ELEM_SIZE, VALUE_SIZE)
    return 0


def pop(m: int, value: int) -> int:
    err = peek(m, value)
    if err:
        return err
    if TAKES_NEWEST:
        u32[m] = newest(m)
    else:
        u32[m + TAIL] = after(m, u32[m + TAIL])
    return 0
