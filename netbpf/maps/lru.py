"""Which element an LRU table gives away next: the approximate LRU of Linux, on lists inside the table's memory.

The rule is the kernel's own (kernel documentation, "BPF_MAP_TYPE_HASH ... LRU", and measured): elements lie on an active, an
inactive and a free list; a lookup by a program sets an element's reference byte and moves nothing. A table with common lists
serves every CPU from a local free list, refilled in lots of ``target_free``; what a CPU took waits on its pending list until the
next refill sorts it by its reference byte. A table made with BPF_F_NO_COMMON_LRU has one such set of lists, and its own share
of the elements, per CPU. Nothing is random, so that one CPU's sequence of calls evicts what it evicts in Linux; where several
CPUs race for one list Linux depends on who comes first, and this on the order of calls.

A list is circular and double: a link is two u32, `next` and `prev`, each the index of another link in words (4 bytes) from the
start of memory. Bytes, at the table's ``extra_off``::

    struct lists {                 // one, or n_cpus of them
        link active, inactive, free;          // words 0, 2, 4: the heads; the newest first
        u32  n_active, n_inactive;            // words 6, 7
        u32  rotation;                        // word 8: the link on the inactive list where the next rotation starts
        u32  fresh, fresh_end;                // words 9, 10: elements fresh + 1 ... fresh_end were never used
        u32  reserved[5];
    };
    struct local { link free, pending; u32 next_steal; u32 reserved[3]; } locals[n_cpus];    // common lists only

and the ``link`` of an element (see maps.table)::

    link list;  u16 cpu;  u8 list_type;  u8 ref;  u32 reserved;
"""

from __future__ import annotations

from typing import Final, Protocol

from netbpf.ints import round_up

ACTIVE, INACTIVE, FREE, LOCAL_FREE, LOCAL_PENDING = range(5)
LINK_SIZE: Final = 16
LISTS_SIZE: Final = 64
LOCAL_SIZE: Final = 32

LOCAL_FREE_TARGET: Final = 128
LOCAL_NR_SCANS: Final = 128
PERCPU_FREE_TARGET: Final = 4
PERCPU_NR_SCANS: Final = 4

N_ACTIVE, N_INACTIVE, ROTATION, FRESH, FRESH_END = 6, 7, 8, 9, 10
NEXT_STEAL: Final = 4


class Elements(Protocol):
    """What the lists need of the table."""

    u32: memoryview[int]

    def word(self, i: int) -> int: ...

    def index_at(self, word: int) -> int: ...

    def unlink(self, i: int) -> None: ...


class Links:
    """Circular double lists of links in a table's memory, and the two bytes each element keeps beside its link."""

    __slots__ = ("bytes", "table", "u32")

    def __init__(self, table: Elements) -> None:
        self.table, self.u32 = table, table.u32
        self.bytes = memoryview(table.u32).cast("B")

    def make_head(self, head: int) -> None:
        self.u32[head] = self.u32[head + 1] = head

    def is_empty(self, head: int) -> bool:
        return self.u32[head] == head

    def remove(self, at: int) -> None:
        following, before = self.u32[at], self.u32[at + 1]
        self.u32[before], self.u32[following + 1] = following, before

    def insert(self, head: int, at: int) -> None:
        """Make the link ``at`` the first of the list."""
        first = self.u32[head]
        self.u32[at], self.u32[at + 1] = first, head
        self.u32[first + 1] = self.u32[head] = at

    def oldest_first(self, head: int, limit: int = 1 << 32) -> list[int]:
        """The links of a list from its tail on, ``limit`` of them at most."""
        found: list[int] = []
        u32, at = self.u32, self.u32[head + 1]
        while at != head and len(found) < limit:
            found.append(at)
            at = u32[at + 1]
        return found

    def list_type(self, at: int) -> int:
        return self.bytes[at * 4 + 10]

    def is_ref(self, at: int) -> bool:
        return bool(self.bytes[at * 4 + 11])

    def stamp(self, at: int, list_type: int) -> None:
        """Note the list a link is on, with its reference byte cleared."""
        self.bytes[at * 4 + 10], self.bytes[at * 4 + 11] = list_type, 0

    def evict(self, at: int) -> None:
        """Take the element of a link out of the hash table."""
        self.table.unlink(self.table.index_at(at - 2))


class LruLists(Links):
    """One set of active, inactive and free lists."""

    __slots__ = ("base", "nr_scans")

    def __init__(self, table: Elements, base: int, nr_scans: int, fresh: int, fresh_end: int) -> None:
        super().__init__(table)
        self.base, self.nr_scans = base, nr_scans
        for list_type in (ACTIVE, INACTIVE, FREE):
            self.make_head(base + 2 * list_type)
        self.u32[base + ROTATION] = base + 2 * INACTIVE
        self.u32[base + FRESH], self.u32[base + FRESH_END] = fresh, fresh_end

    def move(self, at: int, to: int) -> None:
        """Put a link at the head of another (or the same) of these lists."""
        self.leave(at)
        self.enter(at, to)

    def leave(self, at: int) -> None:
        """Take a link off its list; the rotation steps back from it."""
        if self.u32[self.base + ROTATION] == at:
            self.u32[self.base + ROTATION] = self.u32[at + 1]
        if self.list_type(at) < FREE:
            self.u32[self.base + N_ACTIVE + self.list_type(at)] -= 1
        self.remove(at)

    def enter(self, at: int, to: int) -> None:
        if to < FREE:
            self.u32[self.base + N_ACTIVE + to] += 1
        self.stamp(at, to)
        self.insert(self.base + 2 * to, at)

    def take_free(self) -> int:
        """A link off the free list: the one freed last, else that of an element never used. 0 when there is none."""
        u32, head = self.u32, self.base + 2 * FREE
        if not self.is_empty(head):
            at = u32[head]
            self.remove(at)
            return at
        if u32[self.base + FRESH] == u32[self.base + FRESH_END]:
            return 0
        u32[self.base + FRESH] += 1
        return self.table.word(u32[self.base + FRESH]) + 2

    # --- ageing ---------------------------------------------------------------------------------------------------------
    def rotate(self) -> None:
        """Let the active list age when it is the longer one, then look at the next stretch of the inactive list."""
        if self.u32[self.base + N_INACTIVE] < self.u32[self.base + N_ACTIVE]:
            for at in self.oldest_first(self.base + 2 * ACTIVE, self.nr_scans):
                self.move(at, ACTIVE if self.is_ref(at) else INACTIVE)
        self._rotate_inactive()

    def _rotate_inactive(self) -> None:
        """Links that were referenced go to the active list; the others stay where they are. Once around at most."""
        u32, head = self.u32, self.base + 2 * INACTIVE
        if self.is_empty(head):
            return
        at = u32[self.base + ROTATION]
        last = u32[at] if u32[at] != head else u32[head]
        following = head
        for _ in range(self.nr_scans):
            if at == head:
                at = u32[at + 1]
            following = u32[at + 1]
            if self.is_ref(at):
                self.move(at, ACTIVE)
            if at == last:
                break
            at = following
        u32[self.base + ROTATION] = following

    def shrink(self, wanted: int) -> list[int]:
        """Evict up to ``wanted`` elements and return their links, on no list: from the tail of the inactive list those not
        referenced (the others become active), and if a scan finds none, the very oldest whatever its reference byte."""
        found: list[int] = []
        for at in self.oldest_first(self.base + 2 * INACTIVE, self.nr_scans):
            if self.is_ref(at):
                self.move(at, ACTIVE)
                continue
            found.append(self._evict_off(at))
            if len(found) == wanted:
                break
        return found or self._force_shrink()

    def _force_shrink(self) -> list[int]:
        for list_type in (INACTIVE, ACTIVE):
            tail = self.u32[self.base + 2 * list_type + 1]
            if tail != self.base + 2 * list_type:
                return [self._evict_off(tail)]
        return []

    def _evict_off(self, at: int) -> int:
        self.evict(at)
        self.leave(at)
        return at


class PerCpuLru:
    """BPF_F_NO_COMMON_LRU: each CPU evicts only from what it inserted itself."""

    __slots__ = ("_lists",)

    def __init__(self, table: Elements, base: int, n_cpus: int, n_elems: int) -> None:
        share, words = n_elems // n_cpus, LISTS_SIZE >> 2
        self._lists = [
            LruLists(table, base + cpu * words, PERCPU_NR_SCANS, cpu * share, (cpu + 1) * share) for cpu in range(n_cpus)
        ]

    @staticmethod
    def size_bytes(n_cpus: int) -> int:
        return n_cpus * LISTS_SIZE

    def pop(self, cpu: int) -> int:
        """The link of an element to fill, now the newest inactive one of this CPU; 0 if there is none."""
        lists = self._lists[cpu]
        lists.rotate()
        at = lists.take_free()
        if not at:
            for evicted in lists.shrink(PERCPU_FREE_TARGET):
                lists.enter(evicted, FREE)
            at = lists.take_free()
        if at:
            lists.u32[at + 2] = cpu
            lists.enter(at, INACTIVE)
        return at

    def push(self, at: int) -> None:
        """Free an element that is no longer in the hash table."""
        lists = self._lists[self._lists[0].u32[at + 2] & 0xFFFF]
        lists.move(at, FREE)


class CommonLru:
    """One set of lists for all CPUs, with a free and a pending list for each."""

    __slots__ = ("_lists", "_locals", "_n_cpus", "_target_free")

    def __init__(self, table: Elements, base: int, n_cpus: int, n_elems: int) -> None:
        self._lists = LruLists(table, base, LOCAL_NR_SCANS, 0, n_elems)
        self._locals = base + (LISTS_SIZE >> 2)
        self._n_cpus = n_cpus
        self._target_free = min(max(n_elems // n_cpus // 2, 1), LOCAL_FREE_TARGET)
        for cpu in range(n_cpus):
            local = self._local(cpu)
            self._lists.make_head(local)
            self._lists.make_head(local + 2)
            self._lists.u32[local + NEXT_STEAL] = cpu

    @staticmethod
    def size_bytes(n_cpus: int) -> int:
        return LISTS_SIZE + n_cpus * LOCAL_SIZE

    def _local(self, cpu: int) -> int:
        return self._locals + cpu * (LOCAL_SIZE >> 2)

    def pop(self, cpu: int) -> int:
        """The link of an element to fill, now the newest on this CPU's pending list; 0 if there is none."""
        at = self._pop_local_free(cpu)
        if not at:
            self._refill(cpu)
            at = self._pop_local_free(cpu) or self._steal(cpu)
        if at:
            self._lists.u32[at + 2] = cpu
            self._lists.stamp(at, LOCAL_PENDING)
            self._lists.insert(self._local(cpu) + 2, at)
        return at

    def push(self, at: int) -> None:
        """Free an element that is no longer in the hash table: to its CPU while it is pending there, else to all."""
        lists = self._lists
        if lists.list_type(at) != LOCAL_PENDING:
            lists.move(at, FREE)
            return
        lists.remove(at)
        lists.stamp(at, LOCAL_FREE)
        lists.insert(self._local(lists.u32[at + 2] & 0xFFFF), at)

    def _pop_local_free(self, cpu: int) -> int:
        local = self._local(cpu)
        if self._lists.is_empty(local):
            return 0
        at = self._lists.u32[local]
        self._lists.remove(at)
        return at

    def _refill(self, cpu: int) -> None:
        """Sort what is pending into the lists, age them, and take a lot of free elements, evicting for what is missing."""
        lists, local = self._lists, self._local(cpu)
        for at in lists.oldest_first(local + 2):
            ref = lists.is_ref(at)
            lists.remove(at)
            lists.enter(at, ACTIVE if ref else INACTIVE)
        lists.rotate()
        free: list[int] = []
        while len(free) < self._target_free and (at := lists.take_free()):
            free.append(at)
        if len(free) < self._target_free:
            free += lists.shrink(self._target_free - len(free))
        for at in reversed(free):  # the first one found is the first to be used
            lists.stamp(at, LOCAL_FREE)
            lists.insert(local, at)

    def _steal(self, cpu: int) -> int:
        """Every element lies on some CPU's local lists: take one, a CPU further each time."""
        u32, own, at = self._lists.u32, self._local(cpu), 0
        first = steal = u32[own + NEXT_STEAL]
        while not at:
            at = self._pop_local_free(steal) or self._pop_pending(steal)
            steal = (steal + 1) % self._n_cpus
            if steal == first:
                break
        u32[own + NEXT_STEAL] = steal
        return at

    def _pop_pending(self, cpu: int) -> int:
        """The oldest pending element not referenced, else the oldest, evicted; 0 if none is pending."""
        lists = self._lists
        pending = lists.oldest_first(self._local(cpu) + 2)
        if not pending:
            return 0
        at = next((link for link in pending if not lists.is_ref(link)), pending[0])
        lists.evict(at)
        lists.remove(at)
        return at


def lru_entries(max_entries: int, n_cpus: int, per_cpu_lists: bool) -> int:
    """The entries an LRU table really has: with lists per CPU the same number for each."""
    if not per_cpu_lists:
        return max_entries
    rounded = round_up(max_entries, n_cpus)
    return rounded if rounded <= 0xFFFF_FFFF else max_entries // n_cpus * n_cpus
