"""The same frames through the same program on two hosts, and the first difference of what came of it.

``run_on`` asks one host, the simulator or the running kernel: a lab of its own (network namespace, device), a packet socket
with the program attached, frames in one by one, what the socket got of each, what the maps hold at the end. ``compare`` puts
two such answers side by side: how the load ended, its log, every packet, every map entry, in this order.

Knows hosts by their protocol only.
"""

from __future__ import annotations

import errno as _errno
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final, NamedTuple, Self

from netbpf.abi import sockopt as so
from netbpf.abi.net import ETH_P_ALL
from netbpf.errors import ProgramRejected, errno_name
from netbpf.host.attach import attach_loaded, load_for_socket
from netbpf.host.base import Host
from netbpf.host.choose import get_host
from netbpf.host.fd_map import FdMap
from netbpf.host.lab import Received, open_packet_socket, send_and_gather
from netbpf.host.loader import LoadedSpec
from netbpf.packet.socket_skb import AUXDATA, Auxdata
from netbpf.program import ProgramSpec
from netbpf.replay.contents import Entry, PerfEvents, read_maps
from netbpf.replay.frames import describe_frame

LAB_MAC: Final = bytes.fromhex("020000000001")
"""The address of the device that frames come in on: frames to it are PACKET_HOST, other unicast ones PACKET_OTHERHOST."""

ADDRESS_FIELDS: Final = ("device", "protocol", "pkt_type", "hatype", "address")
_ADDRESS = re.compile(r"(\(18\) r\d+ = )0x(?:0|ffff[0-9a-f]{12})\b *")  # of a map: ours has none to tell
_NOT_COMPARED: Final = ("verification time ",)

class Packet(NamedTuple):
    """One frame: ``received`` is what the socket got of it, once or (on lo) twice, nothing where the verdict was 0; ``seen``
    how often an unfiltered socket beside it saw the frame: 0 where the device or the kernel dropped it before any socket."""

    received: tuple[Received, ...]
    seen: int

    @property
    def kept(self) -> int:
        """Bytes that reached the socket, 0 for a drop."""
        return sum(len(r.data) for r in self.received)


@dataclass(frozen=True, slots=True)
class HostRun:
    """What a host made of a program and frames.

    ``errno`` is 0, or that with which ``step`` ("load" or "attach") failed; there are no packets and maps then. ``log`` is the
    verifier's. ``maps``: by name, the entries sorted by key; of a ring or perf buffer the records in order, of a queue or
    stack the elements in the order they are taken, each under its index as key.
    """

    backend: str
    errno: int = 0
    step: str = ""
    log: str = ""
    frames: tuple[bytes, ...] = ()
    packets: tuple[Packet, ...] = ()
    maps: dict[str, tuple[Entry, ...]] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        """Frames of which the socket got something."""
        return sum(1 for p in self.packets if p.received)

    @property
    def dropped(self) -> int:
        """Frames the program saw and dropped."""
        return sum(1 for p in self.packets if p.seen and not p.received)

    @property
    def unseen(self) -> int:
        """Frames that no socket saw."""
        return sum(1 for p in self.packets if not p.seen)


@dataclass(frozen=True, slots=True)
class Difference:
    """``kind``: "errno", "log", "packet" or "map"; ``what`` says where; ``first`` and ``second`` what the two hosts of
    ``backends`` have there. ``number`` counts frames from 1 (0: not about a frame)."""

    kind: str
    what: str
    first: str
    second: str
    backends: tuple[str, str]
    number: int = 0
    frame: bytes = b""

    def __str__(self) -> str:
        """The difference in three lines, then the frame in hex and, where scapy is installed, decoded."""
        width = max(map(len, self.backends))
        lines = [f"first difference: {self.what}"]
        lines += [f"  {name:{width}}  {told}" for name, told in zip(self.backends, (self.first, self.second), strict=True)]
        if self.number:
            lines += [f"frame {self.number}, {len(self.frame)} bytes:", describe_frame(self.frame)]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the frame in hex."""
        told = {"kind": self.kind, "what": self.what, **dict(zip(self.backends, (self.first, self.second), strict=True))}
        return {**told, "packet": self.number, "frame": self.frame.hex()} if self.number else told


# --- one host -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LabOptions:
    """How a lab listens: the ``kind`` of its device (tap, veth, lo), the device's ``mac``, SOCK_RAW or SOCK_DGRAM, the protocol
    (host order), and how long to wait for a frame that an unfiltered socket does not see."""

    kind: str = "tap"
    mac: bytes = LAB_MAC
    sock_type: int = so.SOCK_RAW
    protocol: int = ETH_P_ALL
    wait_s: float = 0.02


DEFAULT_LAB: Final = LabOptions()


class LabRun:
    """A program on a host's lab, frames in as they come: the streaming form of ``run_on``. A context manager.

    ``errno`` and ``step`` tell a refused load or attach; frames are then for nobody. ``maps`` are there while it is open.
    Raises BpfError where the lab itself cannot be made (privileges, no pytun), UsageError for an unknown host.
    """

    def __init__(
        self,
        host: Host | str,
        spec: ProgramSpec,
        *,
        options: LabOptions = DEFAULT_LAB,
        log_level: int = 0,
        engine: str | None = None,
    ) -> None:
        made = _host(host, engine)
        self.backend, self.spec, self.options, self.log_level = made.name, spec, options, log_level
        self.errno, self.step, self.log = 0, "", ""
        self.loaded = LoadedSpec(-1, {})
        self._lab = made.lab(kind=options.kind, mac=options.mac)

    def __enter__(self) -> Self:
        lab, options = self._lab.__enter__(), self.options
        try:
            self.process = lab.process
            self._witness = open_packet_socket(lab)  # first, so that it is served last: what it saw, the other was asked about
            self._sock = open_packet_socket(lab, sock_type=options.sock_type, protocol=options.protocol)
            self._attach()
            self._events = PerfEvents(self.process, self.spec, self.loaded)
        except BaseException:
            self._lab.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()
        self._witness.close()
        self._lab.__exit__(*exc)

    def _attach(self) -> None:
        self.step = "load"
        try:
            self.loaded = load_for_socket(self.process, self.spec, log_level=self.log_level)
            self.step = "attach"
            attach_loaded(self.process, self._sock, self.spec, self.loaded)
        except OSError as refused:
            self.errno = refused.errno or _errno.EIO
            self.log = refused.log if isinstance(refused, ProgramRejected) else ""
            return
        self.step = ""
        self.log = self.process.load_log(self.loaded.prog_fd) if self.loaded.prog_fd >= 0 else ""

    @property
    def maps(self) -> dict[str, FdMap]:
        """The program's maps as user space reads them, by name."""
        return {name: FdMap(self.process, fd, name) for name, fd in self.loaded.map_fds.items()}

    def send(self, frames: Sequence[bytes]) -> list[Packet]:
        """What became of each frame."""
        outcomes = send_and_gather(self._lab, self._sock, frames, witness=self._witness, wait_s=self.options.wait_s)
        return [Packet(outcome.received, outcome.seen) for outcome in outcomes]

    def result(self, frames: Sequence[bytes] = (), packets: Sequence[Packet] = ()) -> HostRun:
        """The run, with the maps as they stand now; queues, stacks and rings are emptied by it."""
        if self.errno:
            return HostRun(self.backend, self.errno, self.step, self.log)
        maps = read_maps(self.process, self.spec, self.loaded, self._events)
        return HostRun(self.backend, log=self.log, frames=tuple(frames), packets=tuple(packets), maps=maps)


def run_on(
    host: Host | str,
    spec: ProgramSpec,
    frames: Iterable[bytes],
    *,
    options: LabOptions = DEFAULT_LAB,
    log_level: int = 0,
) -> HostRun:
    """Run ``frames`` through a program on a host ("sim", "kernel", or a Host); what came of it. A refused load or attach is told
    in the result. Raises as ``LabRun`` does."""
    with LabRun(host, spec, options=options, log_level=log_level) as lab:
        if lab.errno:
            return lab.result()
        sent = tuple(frames)
        return lab.result(sent, lab.send(sent))


def _host(host: Host | str, engine: str | None) -> Host:
    """The simulator gets as many CPUs as the kernel counts here, so that per-CPU values have one shape."""
    if not isinstance(host, str):
        return host
    if host == "sim":
        from netbpf.env import SystemEnv
        from netbpf.host.linux.host import lab_cpu, possible_cpus_or_one
        from netbpf.host.sim.host import SimHost

        return SimHost(env=SystemEnv(lab_cpu()), n_cpus=possible_cpus_or_one(), engine=engine)
    return get_host(host)


# --- two hosts ------------------------------------------------------------------------------------------------------------


def compare(a: HostRun, b: HostRun) -> Difference | None:
    """The first difference of two runs of the same program and frames, None where they agree."""
    names = (a.backend, b.backend)
    if (a.errno, a.step) != (b.errno, b.step):
        return Difference("errno", "how the load ended", _ending(a), _ending(b), names)
    return _log_difference(a, b) or packet_difference(a, b) or _map_difference(a, b)


def run_both(
    spec: ProgramSpec,
    frames: Sequence[bytes],
    *,
    options: LabOptions = DEFAULT_LAB,
    log_level: int = 1,
    sim: Host | None = None,
) -> tuple[HostRun, HostRun, Difference | None]:
    """On the simulator and on the running kernel. Raises what ``run_on`` raises."""
    ours = run_on(sim or "sim", spec, frames, options=options, log_level=log_level)
    theirs = run_on("kernel", spec, frames, options=options, log_level=log_level)
    return ours, theirs, compare(ours, theirs)


def _ending(run: HostRun) -> str:
    if not run.errno:
        return "loaded and attached"
    reason = [line for line in _log_lines(run.log) if not line.startswith(("processed ", "stack depth "))]
    return f"{run.step} refused: {errno_name(run.errno)}" + (f": {reason[-1]}" if reason else "")


def _log_lines(log: str) -> list[str]:
    """The lines of a verifier log that must agree: no times, no addresses of maps."""
    return [_ADDRESS.sub(r"\1ADDRESS ", line).rstrip() for line in log.splitlines() if not line.startswith(_NOT_COMPARED)]


def _log_difference(a: HostRun, b: HostRun) -> Difference | None:
    for number, (mine, theirs) in enumerate(zip_longest(_log_lines(a.log), _log_lines(b.log)), 1):
        if mine != theirs:
            told = ["(no such line)" if line is None else line for line in (mine, theirs)]
            return Difference("log", f"line {number} of the verifier's log", told[0], told[1], (a.backend, b.backend))
    return None


def packet_difference(a: HostRun, b: HostRun, numbers: Sequence[int] | None = None) -> Difference | None:
    """The first packet that differs. ``numbers`` are what the packets are called, from 1 where not given."""
    for i, (mine, theirs) in enumerate(zip(a.packets, b.packets, strict=True)):
        if _facts(mine) != _facts(theirs):
            what, first, second = _packet_words(mine, theirs)
            frame, number = a.frames[i], numbers[i] if numbers else i + 1
            return Difference("packet", f"packet {number}: {what}", first, second, (a.backend, b.backend), number, frame)
    return None


def _facts(packet: Packet) -> tuple[Any, ...]:
    """What must agree; the number of the device is each network's own."""
    return (packet.seen, *((r.data, r.length, r.auxdata, r.address) for r in packet.received))


def _packet_words(a: Packet, b: Packet) -> tuple[str, str, str]:
    if a.seen != b.seen:
        return "whether it gets to any socket", f"seen {a.seen} times", f"seen {b.seen} times"
    if len(a.received) != len(b.received) or a.kept != b.kept:
        return "the verdict", _verdict(a), _verdict(b)
    for mine, theirs in zip(a.received, b.received, strict=True):
        for what, x, y in _aspects(mine, theirs):
            if x != y:
                return what, x, y
    return "what the socket got", repr(a.received), repr(b.received)


def _verdict(packet: Packet) -> str:
    if not packet.received:
        return "dropped"
    return "kept " + " and ".join(f"{len(r.data)} of {original_length(r)} bytes" for r in packet.received)


def original_length(received: Received) -> int:
    """skb->len before the verdict; MSG_TRUNC tells only what was kept."""
    aux = _aux(received)
    return aux[1] if aux else received.length


def _aspects(a: Received, b: Received) -> Iterable[tuple[str, str, str]]:
    yield "the bytes", a.data.hex(), b.data.hex()
    yield "the length by MSG_TRUNC", str(a.length), str(b.length)
    yield "PACKET_AUXDATA", _fields(Auxdata._fields, _aux(a)), _fields(Auxdata._fields, _aux(b))
    yield "the address", _fields(ADDRESS_FIELDS, a.address), _fields(ADDRESS_FIELDS, b.address)


def _aux(received: Received) -> tuple[int, ...]:
    return Auxdata.parse(received.auxdata) if len(received.auxdata) == AUXDATA.size else ()


def _fields(names: Sequence[str], values: Sequence[Any]) -> str:
    return " ".join(f"{n}={v.hex() if isinstance(v, bytes) else v}" for n, v in zip(names, values, strict=False))


def _map_difference(a: HostRun, b: HostRun) -> Difference | None:
    names = (a.backend, b.backend)
    for name, rows in a.maps.items():
        mine, theirs = dict(rows), dict(b.maps.get(name, ()))
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                told = [_value(m.get(key)) for m in (mine, theirs)]
                return Difference("map", f"map {name}, key {key.hex(' ')}", told[0], told[1], names)
    return None


def _value(value: bytes | None) -> str:
    if value is None:
        return "no entry"
    number = f" ({int.from_bytes(value, 'little')})" if len(value) in (1, 2, 4, 8) else ""
    return f"value {value.hex(' ')}{number}"
