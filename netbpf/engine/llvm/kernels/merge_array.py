"""An array of what some packets added, merged into the array they would have changed."""

# ruff: noqa: F821  (the numbers of a map are known when it is compiled)
# mypy: disable-error-code="empty-body, name-defined, no-any-return"

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import zero


def add_slots(base: int, delta: int) -> None: ...


def fits(base: int, delta: int) -> int:
    return 1


def merge(base: int, delta: int) -> None:
    plane = 0
    while plane < PLANES:
        i = 0
        while i < MAX_ENTRIES:
            at = plane * CPU_STRIDE + i * ELEM_SIZE
            add_slots(base + at, delta + at)
            i += 1
        plane += 1
    reset(delta)


def reset(delta: int) -> None:
    plane = 0
    while plane < PLANES:
        zero(delta + plane * CPU_STRIDE, MAX_ENTRIES * ELEM_SIZE)
        plane += 1
