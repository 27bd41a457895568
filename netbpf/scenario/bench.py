"""What a case runs on: a lab of the simulator or of the running kernel, and what differs between the two.

On the kernel a clock moves by waiting, and what cannot be done to a real packet raises Skipped with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol, Self

from netbpf.abi import sockopt as so
from netbpf.abi.caps import CAP_SETS
from netbpf.abi.net import LINKTYPE_ETHERNET
from netbpf.errors import BpfError, NetbpfError
from netbpf.host.attach import attach_loaded
from netbpf.host.base import Process
from netbpf.host.lab import Lab
from netbpf.host.loader import LoadedSpec
from netbpf.packet.device import Device
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff
from netbpf.program import FILE_VIEW, VIEWS, ProgramSpec
from netbpf.replay.compare import LAB_MAC
from netbpf.scenario.fields import apply_fields
from netbpf.scenario.listen import IP6_HEADER
from netbpf.scenario.model import Case, SocketKind, Step
from netbpf.scenario.outcome import Verdict

LONGEST_WAIT_NS: Final = 5_000_000_000
FRAME_WAIT_S: Final = 0.05
OUTBOUND: Final = 2


class Skipped(NetbpfError):
    """A backend cannot run this case, for the reason told."""


class Bench(Protocol):
    """A lab with what a case needs beside it. A context manager."""

    backend: str
    engine: str

    @property
    def lab(self) -> Lab: ...

    @property
    def process(self) -> Process: ...

    def loader(self) -> Process:
        """Who loads the program: the process itself, or a thread of it with the capabilities that the scenario gives."""

    def set_time(self, now_ns: int) -> None:
        """The clock shows ``now_ns`` since the start."""

    def use_cpu(self, cpu: int) -> None: ...

    def trace_reader(self, wanted: bool) -> AbstractContextManager[Callable[[Any], list[str]]]:
        """What gives the lines of trace output since it was last asked; it is given the socket."""

    def is_plain(self, record: Record, step: Step) -> bool:
        """Whether the packet comes in by the device as it is. Raises Skipped where it cannot come in at all."""

    def run_alone(self, sock: Any, record: Record, step: Step) -> Verdict:
        """Run the socket's program on a packet that no device could bring."""

    def wait_for(self, ready: Callable[[], int]) -> int: ...

    def attach(self, sock: Any, spec: ProgramSpec, loaded: LoadedSpec) -> None:
        """The program onto the socket. Raises OSError."""

    def loaded(self, sock: Any) -> Any:
        """The program as an engine has it."""

    def sk_buff(self, record: Record, step: Step) -> SkBuff:
        """The packet as the socket's program sees it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def open_bench(case: Case, backend: str, engine: str) -> Bench:
    """Raises Skipped."""
    return SimBench(case, engine) if backend == "sim" else KernelBench(case)


class SimBench:
    """The simulator: every case runs on it."""

    backend = "sim"

    def __init__(self, case: Case, engine: str) -> None:
        from netbpf.env import SteppedEnv
        from netbpf.host.sim.host import SimHost

        self.engine, self.case = engine, case
        self._alone: Any = None
        self.start_ns = case.machine.start_ns or 0
        self.env = SteppedEnv(self.start_ns, seed=1 if case.machine.seed is None else case.machine.seed)
        host = SimHost(env=self.env, n_cpus=case.machine.cpus, engine=engine, unprivileged_bpf_disabled=0)
        self.lab = host.lab(mac=LAB_MAC)

    @property
    def process(self) -> Process:
        return self.lab.process

    def loader(self) -> Process:
        caps = CAP_SETS[self.case.program.caps]
        return self.lab.process if caps is None else self.lab.process.thread(caps)

    def set_time(self, now_ns: int) -> None:
        self.env.set_time(self.start_ns + now_ns)

    def use_cpu(self, cpu: int) -> None:
        self.env.cpu = cpu

    @contextmanager
    def trace_reader(self, wanted: bool) -> Iterator[Callable[[Any], list[str]]]:
        yield lambda sock: [text for line in self.loaded(sock).trace.drain() for text in line.text.splitlines()]

    def is_plain(self, record: Record, step: Step) -> bool:
        if self.case.socket.view == FILE_VIEW or step.fields:
            return False
        if not self.case.socket.is_packet:
            return _check_arrives(record, self.case.socket)
        return record.linktype == LINKTYPE_ETHERNET and record.wirelen == len(record.data) and record.direction != OUTBOUND

    def wait_for(self, ready: Callable[[], int]) -> int:
        return ready()  # what was delivered has arrived

    def attach(self, sock: Any, spec: ProgramSpec, loaded: LoadedSpec) -> None:
        """A classic filter for the view of a file is no socket's: libpcap would run it itself."""
        if not spec.classic or spec.view != FILE_VIEW:
            attach_loaded(self.process, sock, spec, loaded)
            return
        from netbpf.engine.choose import get_engine
        from netbpf.verifier.classic import prove_classic

        self._alone = get_engine(self.engine).load(prove_classic(spec), self.env, view=FILE_VIEW)

    def loaded(self, sock: Any) -> Any:
        return self._alone or sock.filter_loaded()

    def sk_buff(self, record: Record, step: Step) -> SkBuff:
        kind = self.case.socket
        if kind.kind == "unix":
            return SkBuff(record.data, len(record.data), network_header=0, mac_header=-1, wire_len=len(record.data))
        view = VIEWS[FILE_VIEW] if kind.view == FILE_VIEW else "packet_raw" if kind.is_inet else kind.kind
        device = Device(mac=self.lab.device.mac, ifindex=self.lab.device.ifindex)
        skb = receive(record, device, view)
        if skb is not None and kind.is_inet:
            _move_to_data(skb, kind)
        if skb is None:
            return SkBuff(b"", 0)
        apply_fields(skb, dict(step.fields))
        return skb

    def run_alone(self, sock: Any, record: Record, step: Step) -> Verdict:
        skb = self.sk_buff(record, step)
        if not skb.head and not skb.len:
            return Verdict(False, 0, 0)
        verdict = self.loaded(sock).run_one(skb) & 0xFFFF_FFFF
        return Verdict(True, skb.len, min(verdict, skb.len))

    def __enter__(self) -> SimBench:
        return self

    def __exit__(self, *exc: object) -> None:
        self.lab.__exit__()


class KernelBench:
    """The running kernel. Raises Skipped where it refuses a laboratory, or the case asks for what no real packet has."""

    backend, engine = "kernel", ""

    def __init__(self, case: Case) -> None:
        _check_possible(case)
        self.case, self.now_ns = case, 0
        from netbpf.host.linux.host import LinuxHost

        try:
            self.lab = LinuxHost().lab(mac=LAB_MAC)
        except BpfError as e:
            raise Skipped(f"the kernel gives no laboratory here: {e}") from None
        self._loader: Process | None = None

    @property
    def process(self) -> Process:
        return self.lab.process

    def loader(self) -> Process:
        caps = CAP_SETS[self.case.program.caps]
        if caps is None:
            return self.lab.process
        from netbpf.host.linux.host import LinuxHost, unprivileged_bpf_disabled

        if not caps and (disabled := unprivileged_bpf_disabled()):
            raise Skipped(f"kernel.unprivileged_bpf_disabled is {disabled}: nobody loads a program without capabilities here")
        self._loader = LinuxHost().process(caps=caps)
        return self._loader

    def set_time(self, now_ns: int) -> None:
        if now_ns > self.now_ns:
            time.sleep((now_ns - self.now_ns) / 1e9)
            self.now_ns = now_ns
        if now_ns > LONGEST_WAIT_NS:
            raise Skipped(f"the kernel's clock cannot be set, and to wait {now_ns / 1e9:g} s is too long")

    def use_cpu(self, cpu: int) -> None:
        try:
            self.lab.use_cpu(cpu)
        except OSError as e:
            raise Skipped(f"this process may not run on CPU {cpu} here: {e}") from None

    @contextmanager
    def trace_reader(self, wanted: bool) -> Iterator[Callable[[Any], list[str]]]:
        if not wanted:
            yield lambda sock: []
            return
        from netbpf.host.linux.trace import TraceInstance

        try:
            instance = TraceInstance()
        except OSError as e:
            raise Skipped(f"the kernel's trace output cannot be read here: {e}") from None
        with instance:
            yield lambda sock: instance.read()

    def is_plain(self, record: Record, step: Step) -> bool:
        return _check_arrives(record, self.case.socket)

    def run_alone(self, sock: Any, record: Record, step: Step) -> Verdict:
        raise AssertionError("is_plain has skipped it")

    def wait_for(self, ready: Callable[[], int]) -> int:
        deadline, found = time.monotonic() + FRAME_WAIT_S, ready()
        while not found and time.monotonic() < deadline:
            found = ready()
        return found

    def attach(self, sock: Any, spec: ProgramSpec, loaded: LoadedSpec) -> None:
        attach_loaded(self.process, sock, spec, loaded)

    def loaded(self, sock: Any) -> Any:
        raise AssertionError("only the simulator shows its program")

    def sk_buff(self, record: Record, step: Step) -> SkBuff:
        raise AssertionError("only the simulator shows its sk_buffs")

    def __enter__(self) -> KernelBench:
        self.lab.__enter__()
        if any(step.cpu is not None for step in self.case.steps):
            self.use_cpu(0)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._loader is not None:
            self._loader.exit()
        self.lab.__exit__()


def _check_arrives(record: Record, kind: SocketKind) -> bool:
    """Raises Skipped for a packet that no device, or no sender, could bring."""
    if kind.kind != "unix" and record.linktype != LINKTYPE_ETHERNET:
        raise Skipped(f"a packet of link type {record.linktype} cannot come in by an Ethernet device")
    if record.wirelen != len(record.data):
        raise Skipped("a packet that a capture cut has bytes that nobody knows")
    if record.direction == OUTBOUND:
        raise Skipped("a packet that the capturing host sent cannot come in by a device")
    return True


def _move_to_data(skb: SkBuff, kind: SocketKind) -> None:
    """Where skb->data is at a UDP, TCP or raw socket: behind the IP header, but for a raw socket over IPv4."""
    at = skb.network_header
    header = 4 * (skb.head[at] & 15) if kind.family == so.AF_INET and len(skb.head) > at else IP6_HEADER
    skb.transport_header = at + header
    new = at if kind.kind == "raw" and kind.family == so.AF_INET else at + header
    skb.len, skb.data_off = max(skb.len - (new - skb.data_off), 0), new


def _check_possible(case: Case) -> None:
    """Raises Skipped for what is said of the machine or of packets and cannot be done to a real one."""
    machine = case.machine
    if case.socket.view == FILE_VIEW:
        raise Skipped("the view of a file is libpcap's, not a socket's")
    if machine.start_ns is not None:
        raise Skipped("the kernel's clock cannot be set (machine.time)")
    if machine.seed is not None:
        raise Skipped("the kernel's random numbers have no seed (machine.seed)")
    for step in case.steps:
        if step.fields:
            raise Skipped(f"the kernel lets nobody set {', '.join(step.fields)} of a packet that comes in")
        if step.wirelen:
            raise Skipped("a cut packet cannot come in by a device (wirelen)")
    waits = sum(step.after_ns for step in case.steps) + max((step.at_ns or 0 for step in case.steps), default=0)
    if waits > LONGEST_WAIT_NS:
        raise Skipped(f"the kernel's clock cannot be set, and to wait {waits / 1e9:g} s is too long")
