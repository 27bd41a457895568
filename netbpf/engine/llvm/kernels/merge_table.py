"""A table of what some packets added, merged into the table they would have changed. ``base`` and ``delta`` are alike but for
what is in them; a value's slots are added by ``add_slots``, and emptied by ``clear_slots``."""

# ruff: noqa: F821  (the numbers of a map are known when it is compiled)
# mypy: disable-error-code="empty-body, name-defined, no-any-return"

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import copy, u32, zero

FREE = 4
FRESH = 8


def find(m: int, key: int, hash: int) -> int: ...
def add_slots(base: int, delta: int) -> None: ...
def clear_slots(delta: int) -> None: ...


def element(m: int, i: int) -> int:
    return m + ELEMS_OFF + i * ELEM_SIZE


def value(m: int, i: int) -> int:
    return m + VALUE_OFF + i * VALUE_STEP


def twin(base: int, delta: int, i: int) -> int:
    """The element of ``base`` with the key of element i of ``delta``, or 0."""
    at = element(delta, i)
    return find(base, at + KEY_AT, u32[at + 4])


def fits(base: int, delta: int) -> int:
    """Whether no table was too full on the way: not the small one, not the large one had it been there alone."""
    if not INSERTS:
        return 1
    if u32[delta] >= MAX_ENTRIES:
        return 0
    missing = 0
    i = 1
    while i <= u32[delta + FRESH]:
        if not twin(base, delta, i):
            missing += 1
        i += 1
    return u32[base] + missing <= MAX_ENTRIES


def merge(base: int, delta: int) -> None:
    if INSERTS:
        merge_new(base, delta)
    else:
        merge_known(base, delta)


def merge_new(base: int, delta: int) -> None:
    """New keys in the order in which they came."""
    i = 1
    while i <= u32[delta + FRESH]:
        old = twin(base, delta, i)
        if old:
            add_planes(value(base, old), value(delta, i))
        else:
            insert(base, delta, i)
        i += 1
    reset(delta)


def add_planes(base: int, delta: int) -> None:
    plane = 0
    while plane < PLANES:
        add_slots(base + plane * CPU_STRIDE, delta + plane * CPU_STRIDE)
        plane += 1


def insert(base: int, delta: int, i: int) -> None:
    new = u32[base + FREE]
    if new:
        u32[base + FREE] = u32[element(base, new) + 4]
    else:
        new = u32[base + FRESH] + 1
        u32[base + FRESH] = new
    plane = 0
    while plane < PLANES:
        copy(value(base, new) + plane * CPU_STRIDE, value(delta, i) + plane * CPU_STRIDE, VALUE_SIZE)
        plane += 1
    at = element(base, new)
    source = element(delta, i)
    bucket = base + BUCKETS_OFF + 4 * (u32[source + 4] & BUCKET_MASK)
    copy(at + KEY_AT, source + KEY_AT, KEY_SIZE)
    u32[at] = u32[bucket]
    u32[at + 4] = u32[source + 4]
    u32[bucket] = new
    u32[base] = u32[base] + 1


def merge_known(base: int, delta: int) -> None:
    """Keys that were there before."""
    bucket = 0
    while bucket <= BUCKET_MASK:
        i = u32[delta + BUCKETS_OFF + 4 * bucket]
        while i:
            add_planes(value(base, twin(base, delta, i)), value(delta, i))
            clear_planes(value(delta, i))
            i = u32[element(delta, i)]
        bucket += 1


def clear_planes(delta: int) -> None:
    plane = 0
    while plane < PLANES:
        clear_slots(delta + plane * CPU_STRIDE)
        plane += 1


def reset(delta: int) -> None:
    """Empty it: no key where any may come, else nothing added."""
    if INSERTS:
        zero(delta, 12)
        zero(delta + BUCKETS_OFF, 4 * (BUCKET_MASK + 1))
        return
    bucket = 0
    while bucket <= BUCKET_MASK:
        i = u32[delta + BUCKETS_OFF + 4 * bucket]
        while i:
            clear_planes(value(delta, i))
            i = u32[element(delta, i)]
        bucket += 1
