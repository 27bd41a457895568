"""Updates and deletes of LRU tables: the lists of ``maps.lru``, the elements of ``maps.lru_table``. Lists and links are known by
the index of their first word, as there; ``base`` is that of a set of lists."""

# ruff: noqa: F821  (the numbers of a map are known when it is compiled)
# mypy: disable-error-code="empty-body, name-defined, no-any-return"

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import copy, u8, u32, zero

ACTIVE = 0
INACTIVE = 1
FREE = 2
LOCAL_FREE = 3
LOCAL_PENDING = 4
N_ACTIVE = 6
N_INACTIVE = 7
ROTATION = 8
FRESH = 9
FRESH_END = 10
NEXT_STEAL = 4
PERCPU_FREE_TARGET = 4
EEXIST = 17
ENOENT = 2
EINVAL = 22
ENOMEM = 12


def key_hash(m: int, key: int) -> int: ...
def find(m: int, key: int, hash: int) -> int: ...
def unlink(m: int, element: int) -> None: ...


def word(m: int, i: int) -> int:
    return u32[m + 4 * i]


def list_type(m: int, at: int) -> int:
    return u8[m + 4 * at + 10]


def is_ref(m: int, at: int) -> int:
    return u8[m + 4 * at + 11]


def remove(m: int, at: int) -> None:
    following = word(m, at)
    before = word(m, at + 1)
    u32[m + 4 * before] = following
    u32[m + 4 * following + 4] = before


def insert(m: int, head: int, at: int) -> None:
    first = word(m, head)
    u32[m + 4 * at] = first
    u32[m + 4 * at + 4] = head
    u32[m + 4 * first + 4] = at
    u32[m + 4 * head] = at


def stamp(m: int, at: int, kind: int) -> None:
    u8[m + 4 * at + 10] = kind
    u8[m + 4 * at + 11] = 0


def evict(m: int, at: int) -> None:
    unlink(m, (4 * (at - 2) - ELEMS_OFF) // ELEM_SIZE)


# --- one set of lists ---
def leave(m: int, base: int, at: int) -> None:
    if word(m, base + ROTATION) == at:
        u32[m + 4 * (base + ROTATION)] = word(m, at + 1)
    kind = list_type(m, at)
    if kind < FREE:
        u32[m + 4 * (base + N_ACTIVE + kind)] = word(m, base + N_ACTIVE + kind) - 1
    remove(m, at)


def enter(m: int, base: int, at: int, to: int) -> None:
    if to < FREE:
        u32[m + 4 * (base + N_ACTIVE + to)] = word(m, base + N_ACTIVE + to) + 1
    stamp(m, at, to)
    insert(m, base + 2 * to, at)


def move(m: int, base: int, at: int, to: int) -> None:
    leave(m, base, at)
    enter(m, base, at, to)


def take_free(m: int, base: int) -> int:
    head = base + 2 * FREE
    at = word(m, head)
    if at != head:
        remove(m, at)
        return at
    fresh = word(m, base + FRESH)
    if fresh == word(m, base + FRESH_END):
        return 0
    u32[m + 4 * (base + FRESH)] = fresh + 1
    return (ELEMS_OFF + (fresh + 1) * ELEM_SIZE) // 4 + 2


def rotate(m: int, base: int) -> None:
    if word(m, base + N_INACTIVE) < word(m, base + N_ACTIVE):
        age_active(m, base)
    head = base + 2 * INACTIVE
    if word(m, head) == head:
        return
    at = word(m, base + ROTATION)
    last = word(m, at)
    if last == head:
        last = word(m, head)
    following = head
    n = 0
    while n < NR_SCANS:
        if at == head:
            at = word(m, at + 1)
        following = word(m, at + 1)
        if is_ref(m, at):
            move(m, base, at, ACTIVE)
        if at == last:
            break
        at = following
        n += 1
    u32[m + 4 * (base + ROTATION)] = following


def age_active(m: int, base: int) -> None:
    """The oldest links, counted before any is moved: those that stay active come to the front."""
    head = base + 2 * ACTIVE
    count = 0
    at = word(m, head + 1)
    while at != head and count < NR_SCANS:
        count += 1
        at = word(m, at + 1)
    at = word(m, head + 1)
    while count:
        before = word(m, at + 1)
        move(m, base, at, ACTIVE if is_ref(m, at) else INACTIVE)
        at = before
        count -= 1


def evict_off(m: int, base: int, at: int) -> None:
    evict(m, at)
    leave(m, base, at)


def give(m: int, base: int, local: int, at: int) -> None:
    """What was freed goes to the lists' own free list, or (common lists) behind the others of a CPU's."""
    if COMMON:
        stamp(m, at, LOCAL_FREE)
        insert(m, word(m, local + 1), at)
    else:
        enter(m, base, at, FREE)


def shrink(m: int, base: int, local: int, wanted: int) -> None:
    """Evict up to ``wanted`` elements and give them."""
    head = base + 2 * INACTIVE
    found = 0
    n = 0
    at = word(m, head + 1)
    while at != head and n < NR_SCANS and found < wanted:
        before = word(m, at + 1)
        if is_ref(m, at):
            move(m, base, at, ACTIVE)
        else:
            evict_off(m, base, at)
            give(m, base, local, at)
            found += 1
        at = before
        n += 1
    if found:
        return
    at = word(m, head + 1)
    if at == head:
        head = base + 2 * ACTIVE
        at = word(m, head + 1)
        if at == head:
            return
    evict_off(m, base, at)
    give(m, base, local, at)


# --- lists per CPU ---
def pop_own(m: int, cpu: int) -> int:
    base = BASE + cpu * LISTS_WORDS
    rotate(m, base)
    at = take_free(m, base)
    if not at:
        shrink(m, base, 0, PERCPU_FREE_TARGET)
        at = take_free(m, base)
    if at:
        u32[m + 4 * (at + 2)] = cpu
        enter(m, base, at, INACTIVE)
    return at


# --- common lists ---
def local_of(cpu: int) -> int:
    return LOCALS + cpu * LOCAL_WORDS


def pop_local_free(m: int, cpu: int) -> int:
    local = local_of(cpu)
    at = word(m, local)
    if at == local:
        return 0
    remove(m, at)
    return at


def target_free(m: int) -> int:
    each = TABLE_ENTRIES // N_CPUS // 2
    if each > LOCAL_FREE_TARGET:
        return LOCAL_FREE_TARGET
    return each if each else 1


def refill(m: int, cpu: int) -> None:
    local = local_of(cpu)
    wanted = target_free(m)
    at = word(m, local + 3)
    while at != local + 2:
        before = word(m, at + 1)
        kind = ACTIVE if is_ref(m, at) else INACTIVE
        remove(m, at)
        enter(m, BASE, at, kind)
        at = before
    rotate(m, BASE)
    found = 0
    while found < wanted:
        at = take_free(m, BASE)
        if not at:
            break
        give(m, BASE, local, at)
        found += 1
    if found < wanted:
        shrink(m, BASE, local, wanted - found)


def pop_pending(m: int, cpu: int) -> int:
    head = local_of(cpu) + 2
    at = word(m, head + 1)
    if at == head:
        return 0
    oldest = at
    while at != head and is_ref(m, at):
        at = word(m, at + 1)
    if at == head:
        at = oldest
    evict(m, at)
    remove(m, at)
    return at


def steal(m: int, cpu: int) -> int:
    own = local_of(cpu)
    first = word(m, own + NEXT_STEAL)
    victim = first
    at = 0
    while not at:
        at = pop_local_free(m, victim)
        if not at:
            at = pop_pending(m, victim)
        victim = (victim + 1) % N_CPUS
        if victim == first:
            break
    u32[m + 4 * (own + NEXT_STEAL)] = victim
    return at


def pop_common(m: int, cpu: int) -> int:
    at = pop_local_free(m, cpu)
    if not at:
        refill(m, cpu)
        at = pop_local_free(m, cpu)
        if not at:
            at = steal(m, cpu)
    if at:
        u32[m + 4 * (at + 2)] = cpu
        stamp(m, at, LOCAL_PENDING)
        insert(m, local_of(cpu) + 2, at)
    return at


# --- elements ---
def pop(m: int, cpu: int) -> int:
    """An element to fill, 0 if there is none."""
    at = pop_common(m, cpu) if COMMON else pop_own(m, cpu)
    return (4 * (at - 2) - ELEMS_OFF) // ELEM_SIZE if at else 0


def push(m: int, i: int) -> None:
    """Free an element that is no longer linked."""
    at = (ELEMS_OFF + i * ELEM_SIZE) // 4 + 2
    owner = u32[m + 4 * (at + 2)] & 0xFFFF
    if not COMMON:
        move(m, BASE + owner * LISTS_WORDS, at, FREE)
    elif list_type(m, at) == LOCAL_PENDING:
        remove(m, at)
        stamp(m, at, LOCAL_FREE)
        insert(m, local_of(owner), at)
    else:
        move(m, BASE, at, FREE)


def link(m: int, i: int, key: int, hash: int) -> None:
    element = m + ELEMS_OFF + i * ELEM_SIZE
    bucket = m + BUCKETS_OFF + 4 * (hash & (N_BUCKETS - 1))
    copy(element + KEY_AT, key, KEY_SIZE)
    u32[element] = u32[bucket]
    u32[element + 4] = hash
    u32[bucket] = i
    u32[m] = u32[m] + 1


def flags_error(exists: int, flags: int) -> int:
    if exists:
        return -EEXIST if flags == 1 else 0
    return -ENOENT if flags == 2 else 0


def lru_update(m: int, key: int, value: int, flags: int, cpu: int) -> int:
    if flags > 2:
        return -EINVAL
    return update_shared(m, key, value, flags, cpu) if not PER_CPU else update_own(m, key, value, flags, cpu)


def update_shared(m: int, key: int, value: int, flags: int, cpu: int) -> int:
    i = pop(m, cpu)
    if not i:
        return -ENOMEM
    copy(m + VALUE_OFF + i * VALUE_STEP, value, VALUE_SIZE)
    hash = key_hash(m, key)
    old = find(m, key, hash)
    err = flags_error(old, flags)
    if err:
        push(m, i)
        return err
    link(m, i, key, hash)
    if old:
        u8[m + ELEMS_OFF + i * ELEM_SIZE + 19] = 1
        unlink(m, old)
        push(m, old)
    return 0


def update_own(m: int, key: int, value: int, flags: int, cpu: int) -> int:
    """A table of values per CPU: only this CPU's is written."""
    new = 0
    if flags != 2:
        new = pop(m, cpu)
        if not new:
            return -ENOMEM
    hash = key_hash(m, key)
    old = find(m, key, hash)
    err = flags_error(old, flags)
    if old or err:
        if not err:
            u8[m + ELEMS_OFF + old * ELEM_SIZE + 19] = 1
        if new:
            push(m, new)
        if err:
            return err
        new = old
    else:
        plane = 0
        while plane < N_CPUS:
            zero(m + VALUE_OFF + new * VALUE_STEP + plane * CPU_STRIDE, VALUE_SIZE)
            plane += 1
        link(m, new, key, hash)
    copy(m + VALUE_OFF + new * VALUE_STEP + cpu * CPU_STRIDE, value, VALUE_SIZE)
    return 0


def lru_delete(m: int, key: int) -> int:
    i = find(m, key, key_hash(m, key))
    if not i:
        return -ENOENT
    unlink(m, i)
    push(m, i)
    return 0
