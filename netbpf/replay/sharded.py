"""A replay on several cores on the user's word: packets taken apart by flow, each worker on maps of its own, merged at the end.

For programs without a proof that order does not matter (``replay.parallel`` runs those that have one). Each worker walks the
whole capture, runs the packets whose flow (``engine.llvm.kernels.flow``) is its own, in their order, and passes over the rest.
What is kept: order and state within a flow. What is not: see ``docs/engines.md``. Merging: ``merge_maps``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from netbpf.abi.maps import MAP_KINDS, MapType
from netbpf.engine.commute import commutes
from netbpf.engine.llvm.flows import Flows
from netbpf.engine.llvm.windows import NativeLoaded
from netbpf.env import SteppedEnv
from netbpf.maps.base import Map
from netbpf.maps.create import create
from netbpf.maps.table import SEED
from netbpf.packet.batch import PacketBatch
from netbpf.packet.capture import CaptureReader
from netbpf.replay.core import Interval, Replay
from netbpf.replay.intervals import ONE_INTERVAL_NS
from netbpf.replay.parallel import ParallelReplay

Planes = tuple[bytes, ...]  # a value's copy on every CPU
ARRAYS: Final = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
DIVISIBLE: Final = ARRAYS | {MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH}
JOIN_SECONDS: Final = 0.1


class _Stopped(Exception):
    """The user interrupted the run."""


@dataclass(slots=True)
class Merged:
    """What merging could not keep: keys that several workers changed, keys for which there was no room."""

    contested: int = 0
    lost: int = 0


class Shard(Replay):
    """One worker's part: packets of its flows out of the whole capture, as one interval."""

    def __init__(self, native: NativeLoaded, number: int, count: int, flows: Flows) -> None:
        self.own_maps = tuple(copy_of(m) for m in native.program.maps)
        self.env = SteppedEnv(cpu=native.env.cpu_id())
        if isinstance(native.env, SteppedEnv):  # the sequence that --seed chose, from where it stands
            self.env.rng_state = native.env.rng_state
        loaded = native.on_maps(self.own_maps, self.env)
        loaded.shard, loaded.shards = number, count
        super().__init__(loaded, {}, interval_ns=ONE_INTERVAL_NS)
        self._number, self._count, self._flows = number, count, flows
        self.failed: BaseException | None = None

    def _run_batch(self, batch: PacketBatch) -> Iterator[Interval]:
        if len(batch):
            self.clock.pass_to(batch.ts_ns[0])
        mine = [i for i in range(len(batch)) if self._flows(batch.data(i), batch.linktype) % self._count == self._number]
        if mine:
            yield from super()._run_batch(PacketBatch.from_records([batch.record(i) for i in mine]))

    def go(self, opened: Callable[[], CaptureReader]) -> None:
        """Run a capture to its end, or to what ``failed`` then holds."""
        try:
            with opened() as reader:
                for _ in self.run(reader):
                    pass
        except BaseException as e:  # the one who waits raises it
            self.failed = e


class ShardedReplay(ParallelReplay):
    """A ParallelReplay that, where order matters, takes packets apart by flow. ``reopen`` gives each worker a reader of the
    capture that is run; ``sharded`` tells what was done, once it was."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reopen: Callable[[], CaptureReader] | None = None
        self.sharded: Merged | None = None
        self._why_not = ""

    def run(self, reader: CaptureReader) -> Iterator[Interval]:
        """See Replay. A sharded capture has no intervals: it belongs to the one that runs, told at the end."""
        self.sharded = None
        native = self._divisible()
        if native is None or self.reopen is None:
            why = self._why_not if native is None else "only a file can be read by several workers"
            yield from super().run(reader)
            self.in_order_because = self.in_order_because or why
            return
        self.in_order_because = ""
        shards = [Shard(native, n, self._jobs, Flows(use_cache=self._use_cache)) for n in range(self._jobs)]
        try:
            self._all(shards, self.reopen)
        finally:
            self.sharded = merge_maps(native.program.maps, [s.own_maps for s in shards])
            for shard in shards:
                self._take_totals(native, shard)
        failed = next((s.failed for s in shards if s.failed is not None), None)
        if failed is not None:
            raise failed

    def _divisible(self) -> NativeLoaded | None:
        """The program, where it has to be sharded and can be."""
        self._why_not = ""
        loaded = self.loaded
        if hasattr(loaded, "of_linktype"):
            return None  # an expression keeps nothing: chunks of it run beside each other
        if not isinstance(loaded, NativeLoaded):
            self._why_not = "only the native loop runs packets of flows beside each other"
            return None
        if self._proof is None:
            self._proof = commutes(loaded.program)
        if not self._proof.reason:
            return None
        if self.output is not None or self.sink is not None:
            self._why_not = "accepted packets are written in order"
        elif self.limit is not None:
            self._why_not = "the first packets are not those of a flow"
        kinds = [m.spec for m in loaded.program.maps if m.spec.map_type not in DIVISIBLE]
        if kinds:
            name = MAP_KINDS[kinds[0].map_type].name
            self._why_not = f"map {kinds[0].name!r} is a {name}: only arrays and hashes are sharded"
        return None if self._why_not else loaded

    def _all(self, shards: list[Shard], reopen: Callable[[], CaptureReader]) -> None:
        """Run the workers; an interrupt ends each after its piece."""
        threads = [threading.Thread(target=s.go, args=(reopen,), daemon=True) for s in shards]
        stop = threading.Event()

        def go_on() -> None:
            if stop.is_set():
                raise _Stopped

        for shard, thread in zip(shards, threads, strict=True):
            shard.on_progress = go_on
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(JOIN_SECONDS)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _take_totals(self, native: NativeLoaded, shard: Shard) -> None:
        if shard.clock.started and not self.clock.started:
            self.clock.pass_to(shard.clock.start_ns)
        env: Any = native.env
        if shard.totals.packets:
            env.set_time(max(env.now_ns, shard.env.now_ns))
        self._add(shard.totals)


def copy_of(m: Any) -> Map:
    """A map of the same kind and contents."""
    made: Any = create(m.spec, n_cpus=m.n_cpus, seed=0 if m.spec.map_type in ARRAYS else int(m.u32[SEED]))
    made.memory[:] = m.memory[:]
    return made  # type: ignore[no-any-return]


def merge_maps(own: tuple[Map, ...], workers: list[tuple[Map, ...]]) -> Merged:
    """Bring what workers did to copies of ``own`` into ``own``.

    A key that one worker put, changed or deleted becomes what it is there. One that several workers did this to becomes what
    it is with the last of them, in the order of their numbers, and counts as contested; nothing is added up.
    """
    merged = Merged()
    for index, m in enumerate(own):
        changes: dict[bytes, Planes | None] = {}
        for maps in workers:
            for key, planes in changed(m, maps[index]):
                merged.contested += key in changes
                changes[key] = planes
        for key, planes in changes.items():
            if planes is None:
                m.delete(key)
        for key, planes in changes.items():
            if planes is not None:
                merged.lost += not _put(m, key, planes)
    return merged


def changed(before: Any, after: Any) -> Iterator[tuple[bytes, Planes | None]]:
    """Keys whose values differ between two maps of a kind, and what they are in ``after``: None, not there."""
    if before.memory[:] == after.memory[:]:
        return
    for key, at in after.each():
        was, now = before.lookup_quiet(key), _planes(after, at)
        if was < 0 or _planes(before, was) != now:
            yield key, now
    for key, _ in before.each():
        if after.lookup_quiet(key) < 0:
            yield key, None


def _planes(m: Any, at: int) -> Planes:
    size, copies = m.spec.value_size, m.n_cpus if m.cpu_stride else 1
    return tuple(bytes(m.memory[at + c * m.cpu_stride : at + c * m.cpu_stride + size]) for c in range(copies))


def _put(m: Any, key: bytes, planes: Planes) -> bool:
    """Whether there was room."""
    if m.lookup_quiet(key) < 0 and m.update(key, planes[0]) < 0:
        return False
    at = m.lookup_quiet(key)
    for cpu, value in enumerate(planes):
        m.memory[at + cpu * m.cpu_stride : at + cpu * m.cpu_stride + len(value)] = value
    return True
