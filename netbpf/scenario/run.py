"""A case on a backend: program loaded, maps filled, packets in one by one, and what came of it all.

The same steps on the simulator and on the running kernel, through the Host and Lab seams (``bench`` holds what differs). What a
backend cannot do raises Skipped with the reason; nothing is left out silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from netbpf.abi.maps import MapType
from netbpf.errors import BpfError, ProgramRejected
from netbpf.host.attach import load_for_socket
from netbpf.host.loader import LoadedSpec
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff
from netbpf.program import ProgramSpec
from netbpf.replay.contents import PerfEvents
from netbpf.scenario.bench import Bench, Skipped, open_bench
from netbpf.scenario.codec import MapCodec, codecs_of, no_map
from netbpf.scenario.contents import Reader, check_words
from netbpf.scenario.layout import LayoutError
from netbpf.scenario.listen import Listener, listen
from netbpf.scenario.model import Case, Entry, Expect, MapExpect, Step
from netbpf.scenario.outcome import Contents, Events, Outcome, Rejection, StepOutcome, Verdict
from netbpf.scenario.packets import records_of
from netbpf.scenario.program import program_of

__all__ = ["At", "Skipped", "run_case"]

class At(NamedTuple):
    """Which packet: the index of its step, and its index in the step."""

    step: int
    packet: int


Watch = Callable[[At, Any, SkBuff], None]
"""Called on the simulator before a packet, with the loaded program and the sk_buff."""


def run_case(
    case: Case,
    backend: str = "sim",
    engine: str = "interp",
    *,
    all_maps: bool = False,
    watch: Watch | None = None,
    spec: ProgramSpec | None = None,
) -> Outcome:
    """Run a case; what came of it. ``all_maps``: every map is read at the end, not only those something is expected of. ``spec``
    is run in place of the case's own program.

    Raises Skipped, SourceError with the place of what is wrong in the scenario, and what loading and reading raise.
    """
    program = spec or _spec_or_rejection(case)
    if isinstance(program, Rejection):
        return Outcome(backend, engine if backend == "sim" else "", None, program)
    with open_bench(case, backend, engine) as bench:
        return _Run(case, bench, program, all_maps, watch).go()


def _spec_or_rejection(case: Case) -> ProgramSpec | Rejection:
    """A classic filter may be refused when it is read: by the kernel's own rules, with the reason."""
    try:
        return program_of(case)
    except ProgramRejected as e:
        return Rejection(e.errno or 0, e.log)


@dataclass
class _Run:
    """One run under way."""

    case: Case
    bench: Bench
    spec: ProgramSpec
    all_maps: bool
    watch: Watch | None
    codecs: dict[str, MapCodec] = field(default_factory=dict)
    inner: dict[str, MapCodec] = field(default_factory=dict)  # of inner maps that were read, as ``contents`` names them
    ring: dict[str, list[bytes]] = field(default_factory=dict)
    perf: dict[str, list[bytes]] = field(default_factory=dict)
    trace: list[str] = field(default_factory=list)
    now_ns: int = 0
    last_ts_ns: int = -1

    def go(self) -> Outcome:
        case, bench, process = self.case, self.bench, self.bench.process
        self.codecs = codecs_of(self.spec, case.maps, process.possible_cpus)
        self._check_names()
        listener = closing(listen(bench.lab, case.socket))
        with bench.trace_reader(self._wants_trace()) as self.read_trace, listener as self.listener:
            self.sock = self.listener.sock
            try:
                self.loaded = load_for_socket(bench.loader(), self.spec)
                self._fill()
                bench.attach(self.sock, self.spec, self.loaded)
            except OSError as e:
                return self._outcome(_rejection(e))
            self.perf_events = PerfEvents(process, self.spec, self.loaded)
            steps = tuple(self._step(i, step) for i, step in enumerate(case.steps))
            return self._finished(steps)

    def _outcome(self, rejection: Rejection | None = None, **found: Any) -> Outcome:
        return Outcome(self.bench.backend, self.bench.engine, self.spec, rejection, codecs=self.codecs | self.inner, **found)

    def _finished(self, steps: tuple[StepOutcome, ...]) -> Outcome:
        self._drain_events()
        wanted = self.case.expect.maps
        every = dict.fromkeys(self.codecs) | dict(wanted) if self.all_maps else wanted
        contents = self._contents(every)
        return self._outcome(processed=self._processed(), steps=steps, maps=contents, events=self._events({}, {}, 0))

    def _processed(self) -> int:
        return -1 if self.spec.classic else self.bench.process.prog_info(self.loaded.prog_fd).verified_insns

    # --- maps ---------------------------------------------------------------------------------------------------------
    def _check_names(self) -> None:
        """Every map that is spoken of is one of the program's."""
        case = self.case
        for expect in (case.expect, *(step.expect for step in case.steps)):
            for named in (expect.maps, expect.ring, expect.perf):
                for name, said in named.items():
                    if name not in self.codecs:
                        said.node.fail_key(no_map(name, [*self.codecs]))
            self._check_kinds(expect)
        for step in case.steps:
            for word, entries in (("update", step.updates), ("delete", step.deletes)):
                for name in entries:
                    if name not in self.codecs:
                        step.node.table[word].table[name].fail_key(no_map(name, [*self.codecs]))

    def _check_kinds(self, expect: Expect) -> None:
        for wanted, word, named in (
            (MapType.RINGBUF, "ring", expect.ring),
            (MapType.PERF_EVENT_ARRAY, "perf", expect.perf),
        ):
            for name, said in named.items():
                if self.codecs[name].spec.map_type != wanted:
                    said.node.fail_key(f"{name} is no map that expect.{word} reads")
        for name, contents in expect.maps.items():
            check_words(name, self.codecs[name], contents)

    def _fill(self) -> None:
        for name, setup in self.case.maps.items():
            self._update(name, setup.entries)

    def _update(self, name: str, entries: Iterable[Entry]) -> None:
        codec, fd = self.codecs[name], self.loaded.map_fds[name]
        for e in entries:
            try:
                key, value = codec.key_bytes(e.key, is_text=e.key_is_text), codec.value_bytes(e.value)
            except LayoutError as wrong:
                e.node.fail(f"{name}: {wrong}")
            try:
                self.bench.process.map_update_elem(fd, key, value)
            except BpfError as refused:
                e.node.fail(f"{name} refuses this: {refused}")

    def _delete(self, name: str, entries: Iterable[Entry]) -> None:
        codec, fd = self.codecs[name], self.loaded.map_fds[name]
        for e in entries:
            try:
                self.bench.process.map_delete_elem(fd, codec.key_bytes(e.key, is_text=e.key_is_text))
            except LayoutError as wrong:
                e.node.fail(f"{name}: {wrong}")
            except BpfError as refused:
                e.node.fail(f"{name} cannot delete this: {refused}")

    def _contents(self, wanted: Mapping[str, MapExpect | None]) -> Contents:
        reader = Reader(self.bench.process)
        for name, said in wanted.items():
            reader.read(name, self.codecs[name], self.loaded.map_fds[name], said)
        self.inner |= reader.codecs
        return reader.rows

    # --- steps --------------------------------------------------------------------------------------------------------
    def _step(self, index: int, step: Step) -> StepOutcome:
        before = self.now_ns
        self.now_ns = (before if step.at_ns is None else step.at_ns) + step.after_ns
        self.bench.set_time(self.now_ns)
        if step.cpu is not None:
            self.bench.use_cpu(step.cpu)
        for name, entries in step.updates.items():
            self._update(name, entries)
        for name, entries in step.deletes.items():
            self._delete(name, entries)
        marks = ({n: len(r) for n, r in self.ring.items()}, {n: len(r) for n, r in self.perf.items()}, len(self.trace))
        packets = []
        for number, record in enumerate(records_of(self.case, step)):
            self._follow(step, record, first=number == 0)
            packets.append((record, self._deliver(index, number, step, record)))
            self._drain_events()
        return StepOutcome(tuple(packets), self._contents(step.expect.maps), self._events(*marks))

    def _follow(self, step: Step, record: Record, *, first: bool) -> None:
        """The clock moves between the packets of a timed capture."""
        if step.source is None or not step.source.timed:
            return
        if not first and record.ts_ns > self.last_ts_ns:
            self.now_ns += record.ts_ns - self.last_ts_ns
            self.bench.set_time(self.now_ns)
        self.last_ts_ns = record.ts_ns

    def _deliver(self, index: int, number: int, step: Step, record: Record) -> Verdict:
        record = self.listener.as_sent(record)
        if self.watch is not None:
            self.watch(At(index, number), self.bench.loaded(self.sock), self.bench.sk_buff(record, step))
        if self.bench.is_plain(record, step):
            return self._through_device(record)
        return self.bench.run_alone(self.sock, record, step)

    def _through_device(self, record: Record) -> Verdict:
        """In by the device, or by the other end, and out of the socket."""
        accepted = self.listener.put(record)
        return self.listener.verdict(record, self.bench.wait_for if accepted else _ask_once)

    # --- events -------------------------------------------------------------------------------------------------------
    def _wants_trace(self) -> bool:
        return any(e.trace is not None for e in (self.case.expect, *(s.expect for s in self.case.steps)))

    def _drain_events(self) -> None:
        process = self.bench.process
        for name, codec in self.codecs.items():
            if codec.spec.map_type == MapType.RINGBUF:
                self.ring.setdefault(name, []).extend(process.ringbuf_read(self.loaded.map_fds[name]))
            elif codec.spec.map_type == MapType.PERF_EVENT_ARRAY:
                self.perf.setdefault(name, []).extend(self.perf_events.records(name))
        self.trace += self.read_trace(self.sock)

    def _events(self, ring: dict[str, int], perf: dict[str, int], trace: int) -> Events:
        """What came since the marks."""
        return Events(
            {name: tuple(rows[ring.get(name, 0) :]) for name, rows in self.ring.items()},
            {name: tuple(rows[perf.get(name, 0) :]) for name, rows in self.perf.items()},
            tuple(self.trace[trace:]),
        )

    # set in go(), where each is opened
    loaded: LoadedSpec = field(init=False)
    sock: Any = field(init=False)
    listener: Listener = field(init=False)
    perf_events: PerfEvents = field(init=False)
    read_trace: Callable[[Any], list[str]] = field(init=False)


def _ask_once(ready: Callable[[], int]) -> int:
    return ready()


def _rejection(refused: OSError) -> Rejection:
    return Rejection(refused.errno or 0, refused.log if isinstance(refused, ProgramRejected) else "")
