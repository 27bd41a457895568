"""What a scenario says, as values: made by ``read``, run by ``run``, compared by ``check``. Each knows where it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from netbpf.abi import sockopt as so
from netbpf.scenario.toml_map import Node
from netbpf.sources.load import ObjectOptions

SUFFIX = ".scenario.toml"


@dataclass(frozen=True, slots=True)
class ProgramText:
    """``form``: "file" (``text`` is its path), "asm", "classic" or "expr" (``text`` is the text). ``optimize`` is libpcap's;
    ``caps`` what the process that loads it has, a word of ``abi.caps.CAP_SETS``."""

    form: str
    text: str
    node: Node
    options: ObjectOptions = field(default_factory=ObjectOptions)
    optimize: bool = True
    caps: str = "all"


@dataclass(frozen=True, slots=True)
class SocketKind:
    """Where the program looks: ``kind`` packet_raw, packet_dgram, udp, tcp, raw or unix; ``view`` "socket", or "file" as libpcap
    sees a capture. ``protocol`` is the ETH_P_ number a packet socket listens to; ``address`` and ``port`` are a UDP or TCP
    socket's, ``ip_protocol`` a raw socket's, whose host has ``address``, too. A TCP socket is connected to ``peer_port`` of the
    host ``peer``."""

    kind: str = "packet_raw"
    view: str = "socket"
    protocol: int = 3  # ETH_P_ALL
    address: str = "10.0.0.1"
    port: int = 0
    ip_protocol: int = 0
    node: Node | None = None
    peer: str = "10.0.0.2"
    peer_port: int = 20

    @property
    def is_inet(self) -> bool:
        """Whether packets get to it through IP."""
        return self.kind in ("udp", "tcp", "raw")

    @property
    def is_packet(self) -> bool:
        """Whether it is an AF_PACKET socket."""
        return self.kind in ("packet_raw", "packet_dgram")

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6, by the address."""
        return so.AF_INET6 if ":" in self.address else so.AF_INET


@dataclass(frozen=True, slots=True)
class Machine:
    """``cpus`` of the simulated machine; ``start_ns`` its clock before the first packet (None: not said); ``seed`` of its random
    numbers (None: not said)."""

    cpus: int = 1
    start_ns: int | None = None
    seed: int | None = None
    node: Node | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One element as it is said: a table's key is text (``key_is_text``), any other a value."""

    key: Any
    value: Any
    key_is_text: bool
    node: Node
    value_node: Node


@dataclass(frozen=True, slots=True)
class MapSetup:
    """How the bytes of a map's keys and values are said (empty: by its types, else untyped), and its starting contents: the
    elements of a queue, stack or bloom filter have no key (None). ``inner``: the same of a map of maps' inner maps.
    ``compared``: what it holds must be the same on simulator and kernel, which times are not."""

    key: str = ""
    value: str = ""
    entries: tuple[Entry, ...] = ()
    compared: bool = True
    node: Node | None = None
    inner: MapSetup | None = None


@dataclass(frozen=True, slots=True)
class PacketSource:
    """``form``: "hex", "scapy" (``text``), or "capture" (``text`` is the path; ``ranges`` of packet numbers from 1, empty for
    all; ``filter`` a tcpdump expression; ``timed``: the clock moves between them as the capture says)."""

    form: str
    text: str
    node: Node
    ranges: tuple[tuple[int, int], ...] = ()
    filter: str = ""
    timed: bool = False
    filter_node: Node | None = None


@dataclass(frozen=True, slots=True)
class VerdictExpect:
    """``said``: "accept", "drop", "unseen", a number of bytes kept, a list of those, one a packet, or a table that counts."""

    said: Any
    node: Node


@dataclass(frozen=True, slots=True)
class MapExpect:
    """``partly``: entries, and fields of values, that are not named may be anything. ``count`` of entries, None: not said.

    ``elements`` of a queue or stack in the order in which they are taken; values that a bloom filter ``has`` and ``lacks``, lists
    in nodes; ``inner``: what the map of maps' inner maps hold, by its key as text.
    """

    entries: tuple[Entry, ...] | None
    partly: bool
    count: int | None
    node: Node
    entries_node: Node | None
    count_node: Node | None
    elements: Node | None = None
    has: Node | None = None
    lacks: Node | None = None
    inner: Mapping[str, MapExpect] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventsExpect:
    """Records of a ring buffer or perf events, or lines of trace output, in order. ``partly``: others may be between them."""

    records: tuple[Any, ...] | None
    partly: bool
    count: int | None
    node: Node
    records_node: Node | None
    count_node: Node | None


@dataclass(frozen=True, slots=True)
class RejectExpect:
    """The load fails with ``errno`` (0: any) and ``reason`` stands in the verifier's log."""

    errno: int
    reason: str
    node: Node
    errno_node: Node | None
    reason_node: Node | None


@dataclass(frozen=True, slots=True)
class ProcessedExpect:
    """Instructions the verifier processes: ``low`` to ``high``."""

    low: int
    high: int
    node: Node


@dataclass(frozen=True, slots=True)
class Expect:
    """What must be true after a packet, or at the end."""

    verdict: VerdictExpect | None = None
    maps: Mapping[str, MapExpect] = field(default_factory=dict)
    ring: Mapping[str, EventsExpect] = field(default_factory=dict)
    perf: Mapping[str, EventsExpect] = field(default_factory=dict)
    trace: EventsExpect | None = None
    reject: RejectExpect | None = None
    processed: ProcessedExpect | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What user space does to maps, the packets that come in then, and what is expected of them.

    ``after_ns`` is what the clock moves on by first, ``at_ns`` the time it is set to (since the start); ``cpu`` None: the one
    before; ``fields`` of ``__sk_buff`` by name; ``wirelen`` 0: the packet is whole; ``repeat`` how often it comes.
    """

    name: str
    source: PacketSource | None
    node: Node
    after_ns: int = 0
    at_ns: int | None = None
    cpu: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    wirelen: int = 0
    repeat: int = 1
    updates: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    deletes: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    expect: Expect = field(default_factory=Expect)


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a scenario file. ``folder`` is where its relative paths start; ``id`` is empty for the only one."""

    path: str
    folder: str
    id: str
    title: str
    program: ProgramText
    socket: SocketKind
    machine: Machine
    maps: Mapping[str, MapSetup]
    steps: tuple[Step, ...]
    expect: Expect
    root: Node
    line: int
