"""A replay on several cores, the same to the bit: chunks of the capture run beside each other where the order does not matter.

Only for a program whose effects on maps commute (``engine.commute``). The file is cut into chunks; each is walked by a thread
(native code holds no lock of Python's) on maps of its own, which hold what its packets add, and those are merged in the order of
the capture. What only order can tell is verified before a chunk counts: that it begins where the one before ended (where records
begin in the middle of a file is a guess, ``packet.boundary``), that time does not go back over a tick, that no map was too full.
A chunk that fails, or holds what the native loop leaves to Python, is run again in order.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, Final, cast

from netbpf.engine.commute import Commutes, commutes
from netbpf.engine.llvm.merge import Merger
from netbpf.engine.llvm.program import NEVER_NS
from netbpf.engine.llvm.windows import NO_LIMIT, NativeLoaded
from netbpf.engine.results import Totals
from netbpf.env import SteppedEnv
from netbpf.maps.base import Map
from netbpf.packet.batch import PacketBatch
from netbpf.packet.boundary import RecordFinder
from netbpf.packet.capture import CaptureReader, Window
from netbpf.packet.layout import RecordLayout
from netbpf.packet.stream import HUGE_PAGE_BYTES, MappedStream
from netbpf.replay.core import Interval, Replay

# each begins on empty maps, and what a packet finds there costs less than what it puts
CHUNK: Final = 64 * HUGE_PAGE_BYTES  # the smallest
LARGEST_CHUNK: Final = 8 * CHUNK  # it is merged, and told of, as a whole
CHUNKS_A_JOB: Final = 2  # at least, so that one that has to be run again is not half of it
STEP: Final = 8 * HUGE_PAGE_BYTES  # mapped at once
MADV_POPULATE_READ: Final = 22  # Linux 5.14
SEGMENTS_AHEAD: Final = 3  # of a worker, each with maps of its own, before the first of them is merged


class Piece:
    """A part of a mapped capture to be walked, as ``packet.capture.Window``; nobody else is told of the progress."""

    __slots__ = ("buffer", "end", "first_number", "layout", "start")

    def __init__(self, buffer: mmap.mmap, start: int, end: int, layout: RecordLayout) -> None:
        self.buffer, self.start, self.end, self.layout, self.first_number = buffer, start, end, layout, 1

    def advance(self, size_bytes: int, records: int) -> None:
        self.start += size_bytes
        self.first_number += records


@dataclass(slots=True)
class Bench:
    """Native code on delta maps."""

    loaded: NativeLoaded
    maps: tuple[Map, ...]
    env: SteppedEnv


@dataclass(slots=True)
class Segment:
    """Packets of one interval: what they came to, which bytes of the file they are, and the bench that holds what they added."""

    index: int
    start: int
    end: int
    totals: Totals
    bench: Bench


@dataclass(slots=True)
class Chunk:
    """Bytes of the file up to ``limit``; ``start`` is where its first record begins (-1: not known), there when the first item of
    ``found`` is: segments, at last None or what went wrong."""

    limit: int
    start: int = -1
    found: SimpleQueue[Segment | BaseException | None] = field(default_factory=SimpleQueue)


@dataclass(slots=True)
class Job:
    """What workers share: the file, how it is read, when it began, and what is to be done."""

    stream: MappedStream
    layout: RecordLayout
    begins: int  # the first record's place in the file
    start_ns: int
    interval_ns: int
    chunks: list[Chunk]
    stop: bool = False


class Worker:
    """A thread that walks every ``step``-th chunk from ``first`` on."""

    def __init__(self, job: Job, first: int, step: int, benches: list[Bench]) -> None:
        self._job, self._numbers = job, range(first, len(job.chunks), step)
        self.free: SimpleQueue[Bench | None] = SimpleQueue()  # None: there will be no more
        for bench in benches:
            self.free.put(bench)
        stream = job.stream
        size = os.fstat(stream.fd).st_size
        self._map = mmap.mmap(stream.fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self._pin = (ctypes.c_char * 1).from_buffer(self._map)
        self._madvise = ctypes.CDLL(None).madvise  # without the interpreter's lock, which mmap.madvise would keep
        self._madvise.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        for number in self._numbers:
            chunk = self._job.chunks[number]
            try:
                if not self._job.stop:
                    self._walk(chunk, self._job.chunks[number - 1].limit if number else -1)
            except BaseException as e:  # the one who waits for the chunk raises it
                chunk.found.put(e)
            chunk.found.put(None)

    def _advise(self, first: int, end: int, advice: int) -> None:
        first = max(0, first // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES)
        if first < end:
            self._madvise(ctypes.addressof(self._pin) + first, end - first, advice)

    def _walk(self, chunk: Chunk, before: int) -> None:
        job = self._job
        if before < 0:
            chunk.start = job.begins
        else:
            finder = RecordFinder(self._map, job.stream.first, job.layout, job.start_ns // 1_000_000_000)
            chunk.start = finder.crossing(before, job.begins)
        if chunk.start < 0:
            return
        piece = Piece(self._map, chunk.start, chunk.start, job.layout)
        self._bring(chunk, piece)
        next_ns: int | None = 0
        while next_ns is not None and not job.stop:
            next_ns = self._segment(chunk, piece)
        self._advise(chunk.start, chunk.limit, mmap.MADV_DONTNEED)

    def _bring(self, chunk: Chunk, piece: Piece) -> None:
        """Map what comes behind the piece, let go of what was walked, and have the piece end there."""
        end = min(piece.end + STEP, chunk.limit)
        self._advise(piece.end, end, MADV_POPULATE_READ)
        self._advise(piece.start - 2 * STEP, piece.start - HUGE_PAGE_BYTES, mmap.MADV_DONTNEED)
        piece.end = end

    def _segment(self, chunk: Chunk, piece: Piece) -> int | None:
        """Walk to the end of the interval of the next packet; the time of the packet behind it, None where there is none."""
        job, totals, start = self._job, Totals(), piece.start
        bench, window = self.free.get(), cast("Window", piece)
        if bench is None:
            return None
        first_ns = bench.loaded.walk(window, totals, stop_ns=0, max_packets=1)
        if first_ns is None:
            self.free.put(bench)
            return None
        index = max(0, (first_ns - job.start_ns) // job.interval_ns)
        next_tick_ns = min(NEVER_NS, job.start_ns + (index + 1) * job.interval_ns)
        next_ns = self._through(chunk, piece, bench, totals, next_tick_ns)
        chunk.found.put(Segment(index, start, piece.start, totals, bench))
        return next_ns

    def _through(self, chunk: Chunk, piece: Piece, bench: Bench, totals: Totals, stop_ns: int) -> int | None:
        """As ``NativeLoaded.walk``, to the end of the chunk, which is mapped on the way."""
        while True:
            before, window = piece.start, cast("Window", piece)
            next_ns = bench.loaded.walk(window, totals, stop_ns=stop_ns, max_packets=NO_LIMIT)
            # where it does not get on though there is more, a record is left to Python
            if next_ns is not None or piece.end == chunk.limit or piece.start == before or self._job.stop:
                return next_ns
            self._bring(chunk, piece)


def _chunk_bytes(size: int, jobs: int) -> int:
    """Into pieces of how many bytes a file is cut: few, as many for each job, in whole pages of the largest kind."""
    for_each = max(CHUNKS_A_JOB, _quotient(size, LARGEST_CHUNK * jobs))
    page = CHUNK // 64
    return max(CHUNK, _quotient(_quotient(size, for_each * jobs), page) * page)


def _quotient(a: int, b: int) -> int:
    """Rounded up."""
    return -(-a // b)


class ParallelReplay(Replay):
    """A Replay with ``jobs`` threads for captures in large regular files; else, and where the program's effects do not commute,
    in order. ``in_order_because`` tells why, once it is known."""

    def __init__(self, *args: Any, jobs: int, use_cache: bool = True, **options: Any) -> None:
        super().__init__(*args, **options)
        self._jobs, self._use_cache = jobs, use_cache
        self.in_order_because = ""
        self._proof: Commutes | None = None
        self.chunks_again = 0  # chunks that were run again in order

    def run(self, reader: CaptureReader) -> Iterator[Interval]:
        """See Replay."""
        native = self._native(reader)
        if native is not None:
            yield from self._beside(reader, native)
        yield from super().run(reader)

    def _native(self, reader: CaptureReader) -> NativeLoaded | None:
        """The program, where its chunks may run beside each other."""
        self.in_order_because = ""
        layout, loaded = reader.layout(), self.loaded
        if reader.mapped is None or os.fstat(reader.mapped.fd).st_size < 2 * CHUNK:
            return None  # small, or no regular file
        if hasattr(loaded, "of_linktype") and layout.interfaces:
            loaded = loaded.of_linktype(layout.interfaces[0].linktype)
        if not isinstance(loaded, NativeLoaded) or not loaded.can_walk(layout):
            self.in_order_because = "only the native loop runs chunks beside each other"
        elif self.output is not None or self.sink is not None:
            self.in_order_because = "accepted packets are written in order"
        elif self.limit is not None:
            self.in_order_because = "the first packets are those of the first chunk"
        else:
            if self._proof is None:
                self._proof = commutes(loaded.program)
            self.in_order_because = self._proof.reason
        return None if self.in_order_because or not isinstance(loaded, NativeLoaded) else loaded

    def _beside(self, reader: CaptureReader, native: NativeLoaded) -> Iterator[Interval]:
        job = self._job(reader)
        if job is None or self._proof is None:
            return
        native.prepare(job.layout, scouted=False)
        merger = Merger(native.program, self._proof.maps, use_cache=self._use_cache)
        workers = [Worker(job, n, self._jobs, self._benches(native, merger)) for n in range(self._jobs)]
        for worker in workers:
            worker.thread.start()
        try:
            for number, chunk in enumerate(job.chunks):
                yield from self._take(reader, native, job, merger, chunk, workers[number % self._jobs])
                self.on_progress()
        finally:
            job.stop = True
            for worker in workers:
                worker.free.put(None)
            for worker in workers:
                worker.thread.join()

    def _benches(self, native: NativeLoaded, merger: Merger) -> list[Bench]:
        made = []
        for _ in range(SEGMENTS_AHEAD):
            maps, env = merger.new_maps(), SteppedEnv(cpu=native.env.cpu_id())
            made.append(Bench(native.on_maps(maps, env), maps, env))
        return made

    def _job(self, reader: CaptureReader) -> Job | None:
        """Cut what is left of the file; None where its first packet is none for native code."""
        stream = reader.mapped
        assert stream is not None
        if not self.clock.started and not self._starts_clock(reader):
            return None
        begins, size = stream.first + reader.offset, os.fstat(stream.fd).st_size
        step = _chunk_bytes(size, self._jobs)
        limits = [*range((begins // step + 1) * step, size, step), size]
        chunks = [Chunk(limit) for limit in limits]
        return Job(stream, reader.layout(), begins, self.clock.start_ns, self.clock.interval_ns, chunks)

    def _starts_clock(self, reader: CaptureReader) -> bool:
        """Have the clock start with the first packet, which does not run yet."""
        window = next(iter(reader.windows()), None)
        if not isinstance(window, Window):
            return False
        walker: Any = self.loaded
        first_ns = walker.walk(window, self.totals, stop_ns=0, max_packets=1)
        if first_ns is not None:
            self.clock.pass_to(first_ns)
        return first_ns is not None

    def _take(
        self, reader: CaptureReader, native: NativeLoaded, job: Job, merger: Merger, chunk: Chunk, worker: Worker
    ) -> Iterator[Interval]:
        """The segments of a chunk as far as they are what running in order gives; the rest in order."""
        good, taken = True, 0
        while (found := chunk.found.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            bench = found.bench
            good = good and found.start == job.stream.first + reader.offset and reader.layout() == job.layout
            good = good and found.index >= self.clock.index and merger.fits(bench.maps)
            if good:
                ticks = found.index - self.clock.index
                self.clock.index = found.index
                if ticks:
                    yield from self._close(ticks)
                merger.merge(bench.maps)
                self._add(found.totals)
                reader.advance(found.end - found.start, found.totals.packets)
                own_env: Any = native.env
                own_env.set_time(bench.env.now_ns)
                taken += 1
            else:
                merger.reset(bench.maps)
            worker.free.put(bench)
        if not good or job.stream.first + reader.offset < chunk.limit:
            self.chunks_again += not good or not taken
            yield from self._in_order(reader, job.stream, chunk.limit)

    def _add(self, t: Totals) -> None:
        own = self.totals
        self.totals = replace(
            own, packets=own.packets + t.packets, bytes=own.bytes + t.bytes, accepted=own.accepted + t.accepted,
            dropped=own.dropped + t.dropped, trimmed=own.trimmed + t.trimmed, last_ns=max(own.last_ns, t.last_ns),
        )  # fmt: skip

    def _in_order(self, reader: CaptureReader, stream: MappedStream, limit: int) -> Iterator[Interval]:
        """Run from where the reader stands up to the record that crosses ``limit``."""
        walker: Any = self.loaded
        for piece in reader.windows():
            left = limit - stream.first - reader.offset
            if left <= 0:
                return
            if isinstance(piece, PacketBatch):
                yield from self._run_batch(piece)
                continue
            is_last = piece.end - piece.start >= left
            piece.end = min(piece.end, piece.start + left)
            before = reader.offset
            yield from self._walk(walker, piece)
            if is_last and reader.offset == before:
                return
