"""Scenario text -> cases. The schema is documented in docs/scenarios.md; every complaint has its place and a caret.

Reads words only: programs are assembled, packets built and captures opened when a case runs.
"""

from __future__ import annotations

import errno as errno_numbers
import ipaddress
import os
from dataclasses import replace
from typing import Final

from netbpf.abi.caps import CAP_SETS
from netbpf.abi.net import ETH_P_ALL, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6
from netbpf.abi.sockopt import AF_INET
from netbpf.errors import ENOTSUPP, SourceError
from netbpf.program import FILE_VIEW, SOCKET_VIEW, VIEWS
from netbpf.scenario.fields import read_field
from netbpf.scenario.layout import LayoutError, parse_layout
from netbpf.scenario.model import (
    Case,
    Entry,
    EventsExpect,
    Expect,
    Machine,
    MapExpect,
    MapSetup,
    PacketSource,
    ProcessedExpect,
    ProgramText,
    RejectExpect,
    SocketKind,
    Step,
    VerdictExpect,
)
from netbpf.scenario.params import CaseTree, expand
from netbpf.scenario.table import Table, integer_of, text_of
from netbpf.scenario.toml_map import Node, parse
from netbpf.sources.lexer import did_you_mean
from netbpf.sources.load import ObjectOptions

VERSION: Final = 1
MAX_BYTES: Final = 4 << 20
MAX_CPUS: Final = 64
MAX_REPEAT: Final = 1_000_000
PROGRAM_FORMS: Final = ("file", "asm", "classic", "expr")
PACKET_FORMS: Final = ("hex", "scapy", "capture")
KINDS: Final = ("packet_raw", "packet_dgram", "udp", "tcp", "raw", "unix")
WITH_PORT: Final = ("udp", "tcp")
SCAPY_PORT: Final = 20  # what TCP() of scapy comes from
PROTOCOLS: Final = {"all": ETH_P_ALL, "ip": ETH_P_IP, "ipv6": ETH_P_IPV6, "arp": ETH_P_ARP}
VERDICTS: Final = ("accept", "drop", "unseen")
COUNTED: Final = ("accept", "drop", "trim", "unseen")


def read_file(path: str) -> list[Case]:
    """Every case of a scenario file. Raises SourceError, OSError."""
    with open(path, "rb") as f:
        data = f.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SourceError(f"larger than {MAX_BYTES >> 20} MiB: no scenario is", path=path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise SourceError(f"byte {e.start} is no UTF-8, and TOML is", path=path) from None
    return read_text(text, path)


def read_text(text: str, path: str = "<scenario>") -> list[Case]:
    """Every case of a scenario's text; its relative paths start at the folder of ``path``. Raises SourceError."""
    root = parse(text, path)
    _check_version(root)
    return [_case(path, one) for one in expand(root)]


def _check_version(root: Node) -> None:
    node = root.table.get("netbpf")
    if node is None:
        first = next(iter(root.table.values()), root)
        first.fail_key(f"a scenario begins with the version of its schema: netbpf = {VERSION}")
    if node.value != VERSION or isinstance(node.value, bool):
        node.fail(f"this netbpf reads schema {VERSION}, not {node.plain()!r}")


def _case(path: str, one: CaseTree) -> Case:
    top = Table(one.tree, "a scenario")
    top.take("netbpf")
    top.take("cases")
    title = top.text("title")
    top.text("about")
    program = top.take("program")
    if program is None:
        one.tree.fail("a scenario has a [program]: file, asm, classic or expr")
    read = _program(program)
    made = Case(
        path=path,
        folder=os.path.dirname(path),
        id=one.id,
        title=title,
        program=read,
        socket=_socket(top.take("socket")),
        machine=_machine(top.take("machine")),
        maps=top.named("maps", _map_setup),
        steps=tuple(_step(node) for node in top.tables("packet")),
        expect=_expect(top.take("expect"), is_end=True),
        root=one.tree,
        line=one.row.line if one.row is not None else program.line,
    )
    top.close()
    _check_whole(made)
    return made


def _check_whole(case: Case) -> None:
    """What only holds of a scenario as a whole."""
    reject = case.expect.reject
    if reject is not None and case.steps:
        reject.node.fail_key("a program that is refused sees no packet: this scenario has some")
    last = 0
    for step in case.steps:
        if case.socket.kind == "unix" and step.source is not None and step.source.form == "capture":
            step.source.node.fail_key("no capture holds what an AF_UNIX socket was sent: give the bytes as hex or scapy")
        if step.fields and not case.socket.is_packet:
            step.node.table["skb"].fail_key("fields can be set at packet sockets only")
        if step.at_ns is not None and step.at_ns < last:
            step.node.table["at"].fail("the clock does not go back: this is before the packet above")
        last = (last if step.at_ns is None else step.at_ns) + step.after_ns
        if step.cpu is not None and step.cpu >= case.machine.cpus:
            step.node.table["cpu"].fail(f"the machine has {case.machine.cpus} CPUs, from 0: say machine.cpus")


# --- program, socket, machine -----------------------------------------------------------------------------------------


def _program(node: Node) -> ProgramText:
    t = Table(node, "a program")
    forms = [(form, t.take(form)) for form in PROGRAM_FORMS]
    given = [(form, n) for form, n in forms if n is not None]
    options = ObjectOptions(t.text("symbol"), t.named("kconfig", _setting), t.text("btf"))
    optimize, caps = t.take("optimize"), t.choice("caps", tuple(CAP_SETS), "all")
    t.close()
    if len(given) != 1:
        node.fail(f"a program is given by one of {', '.join(PROGRAM_FORMS)}: here {'are several' if given else 'is none'}")
    form, at = given[0]
    if form != "file" and (options.program or options.kconfig or options.btf):
        node.fail("symbol, kconfig and btf are of clang objects: file = \"x.o\"")
    if optimize is not None and (form != "expr" or not isinstance(optimize.value, bool)):
        optimize.fail("optimize is true or false, and goes with expr")
    return ProgramText(form, text_of(at, form), at, options, optimize is None or bool(optimize.value), caps)


def _setting(name: str, node: Node) -> str:
    if isinstance(node.value, bool):
        return "y" if node.value else "n"
    if not isinstance(node.value, str | int):
        node.fail("a kernel setting is text, a number, or true or false")
    return str(node.value)


def _socket(node: Node | None) -> SocketKind:
    if node is None:
        return SocketKind()
    t = Table(node, "a socket")
    kind = t.choice("kind", KINDS, "packet_raw")
    view = t.choice("view", tuple(VIEWS), SOCKET_VIEW)
    protocol, address = t.take("protocol"), t.take("address")
    port, ip_protocol = t.integer("port", 0, 1, 0xFFFF), t.integer("ip_protocol", 0, 1, 254)
    peer, peer_port = t.take("peer"), t.integer("peer_port", 0, 1, 0xFFFF)
    t.close()
    number = ETH_P_ALL if protocol is None else _protocol(protocol)
    if view == FILE_VIEW and (kind != "packet_raw" or number != ETH_P_ALL):
        node.fail("the view of a file has no socket: no kind and no protocol")
    made = SocketKind(kind, view, number, "10.0.0.1" if address is None else _address(address), port, ip_protocol, node)
    if protocol is not None and not made.is_packet:
        protocol.fail_key("protocol is a packet socket's: a raw socket has an ip_protocol")
    if address is not None and not made.is_inet:
        address.fail_key("address is of UDP, TCP and raw sockets")
    if bool(port) != (kind in WITH_PORT) or bool(ip_protocol) != (kind == "raw"):
        node.fail("a UDP or TCP socket has a port, a raw socket an ip_protocol, other kinds have neither")
    if kind != "tcp" and (peer is not None or peer_port):
        node.fail("peer and peer_port are of TCP sockets")
    return replace(made, peer=_peer(peer, made), peer_port=peer_port or SCAPY_PORT) if kind == "tcp" else made


def _peer(node: Node | None, socket: SocketKind) -> str:
    """The address of the other end; what scapy packets come from where nothing is said."""
    if node is None:
        return "10.0.0.2" if socket.family == AF_INET else "fd00::2"
    peer = _address(node)
    if (":" in peer) != (socket.family != AF_INET):
        node.fail("both ends of a connection have IPv4 addresses, or both IPv6")
    return peer


def _address(node: Node) -> str:
    try:
        return str(ipaddress.ip_address(text_of(node, "address")))
    except ValueError:
        node.fail("address is an IP address of the host")


def _protocol(node: Node) -> int:
    if isinstance(node.value, str):
        if node.value not in PROTOCOLS:
            node.fail(f"a protocol is a number or one of {', '.join(PROTOCOLS)}{did_you_mean(node.value, PROTOCOLS)}")
        return PROTOCOLS[node.value]
    return integer_of(node, "a protocol", 1, 0xFFFF)


def _machine(node: Node | None) -> Machine:
    if node is None:
        return Machine()
    t = Table(node, "a machine")
    cpus, start = t.integer("cpus", 1, 1, MAX_CPUS), t.duration("time")
    seed = t.take("seed")
    t.close()
    return Machine(cpus, start, None if seed is None else integer_of(seed, "seed"), node)


# --- maps -------------------------------------------------------------------------------------------------------------


def _map_setup(name: str, node: Node) -> MapSetup:
    t = Table(node, "a map")
    key, value = _layout(t, "key"), _layout(t, "value")
    entries, compared, elements = t.take("entries"), t.take("compare"), t.take("elements")
    inner = t.take("inner")
    t.close()
    if entries is not None and elements is not None:
        elements.fail_key("a map has entries, with keys, or elements, without")
    if compared is not None and not isinstance(compared.value, bool):
        compared.fail("compare is true or false")
    said = () if entries is None else _entries(entries)
    said += () if elements is None else tuple(Entry(None, n.plain(), False, n, n) for n in _list(elements, "elements"))
    within = None if inner is None else _inner_setup(inner)
    return MapSetup(key, value, said, compared is None or bool(compared.value), node, within)


def _inner_setup(node: Node) -> MapSetup:
    t = Table(node, "the inner maps")
    key, value = _layout(t, "key"), _layout(t, "value")
    t.close()
    return MapSetup(key, value, node=node)


def _list(node: Node, what: str) -> list[Node]:
    if not node.is_array:
        node.fail(f"{what} are a list")
    return node.array


def _layout(t: Table, key: str) -> str:
    node = t.take(key)
    if node is None:
        return ""
    text = text_of(node, key)
    try:
        parse_layout(text)
    except LayoutError as e:
        node.fail(str(e))
    return text


def _entries(node: Node) -> tuple[Entry, ...]:
    """``{ 6 = 1, "10.0.0.1" = 2 }`` or ``[{ key = ..., value = ... }]``."""
    if node.is_table:
        return tuple(Entry(key, n.plain(), True, n, n) for key, n in node.table.items())
    if not node.is_array:
        node.fail("entries are a table { key = value } or a list of { key = ..., value = ... }")
    return tuple(_entry(n) for n in node.array)


def _entry(node: Node) -> Entry:
    t = Table(node, "an entry")
    key, value = t.take("key"), t.take("value")
    t.close()
    if key is None or value is None:
        node.fail("an entry has a key and a value")
    return Entry(key.plain(), value.plain(), False, node, value)


def _keys(name: str, node: Node) -> tuple[Entry, ...]:
    if not node.is_array:
        node.fail("keys to delete are a list")
    return tuple(Entry(n.plain(), None, isinstance(n.value, str), n, n) for n in node.array)


# --- packets ----------------------------------------------------------------------------------------------------------


def _step(node: Node) -> Step:
    t = Table(node, "a packet")
    step = Step(
        name=t.text("name"),
        source=_source(t),
        node=node,
        after_ns=t.duration("after") or 0,
        at_ns=t.duration("at"),
        cpu=None if (cpu := t.take("cpu")) is None else integer_of(cpu, "cpu", 0, MAX_CPUS - 1),
        fields=t.named("skb", read_field),
        wirelen=t.integer("wirelen", 0, 0, 0xFFFF_FFFF),
        repeat=t.integer("repeat", 1, 1, MAX_REPEAT),
        updates=t.named("update", lambda name, n: _entries(n)),
        deletes=t.named("delete", _keys),
        expect=_expect(t.take("expect"), is_end=False),
    )
    t.close()
    if step.at_ns is not None and step.after_ns:
        node.fail("at and after both say when: one of them")
    if step.source is None:
        _check_packetless(step)
    elif step.wirelen and step.source.form == "capture":
        node.table["wirelen"].fail_key("a capture says itself how long its packets were")
    return step


def _check_packetless(step: Step) -> None:
    """A step without packet only lets time pass and writes maps."""
    for key in ("skb", "wirelen", "repeat"):
        if key in step.node.table:
            step.node.table[key].fail_key(f"{key} is of a packet: give it as {', '.join(PACKET_FORMS)}")
    if step.expect.verdict is not None:
        step.expect.verdict.node.fail_key(f"there is no packet to judge: give it as {', '.join(PACKET_FORMS)}")


def _source(t: Table) -> PacketSource | None:
    given = [(form, node) for form in PACKET_FORMS if (node := t.take(form)) is not None]
    ranges, filter_node, timed = t.take("range"), t.take("filter"), t.take("timed")
    if len(given) > 1:
        given[1][1].fail_key(f"a packet is given by one of {', '.join(PACKET_FORMS)}")
    for node in (ranges, filter_node, timed):
        if node is not None and (not given or given[0][0] != "capture"):
            node.fail_key("range, filter and timed are of a capture")
    if timed is not None and not isinstance(timed.value, bool):
        timed.fail("timed is true or false")
    if not given:
        return None
    form, node = given[0]
    text = text_of(node, form)
    if form == "hex":
        _check_hex(node, text)
    chosen = () if ranges is None else _ranges(ranges)
    words = "" if filter_node is None else text_of(filter_node, "filter")
    return PacketSource(form, text, node, chosen, words, timed is not None and bool(timed.value), filter_node)


def _check_hex(node: Node, text: str) -> None:
    try:
        data = bytes.fromhex(text)
    except ValueError as e:
        node.fail(f"no hex digits: {e}")
    if not data:
        node.fail("a packet has at least one byte")


def _ranges(node: Node) -> tuple[tuple[int, int], ...]:
    """``"1-20,30,40-"``, or one number."""
    if isinstance(node.value, int) and not isinstance(node.value, bool) and node.value > 0:
        return ((node.value, node.value),)
    found = []
    for piece in text_of(node, "range").split(","):
        first, dash, last = piece.strip().partition("-")
        low = int(first) if first.isdecimal() else 0
        high = int(last) if last.isdecimal() else (low if not dash else 1 << 62 if not last.strip() else 0)
        if not 0 < low <= high:
            node.fail(f"{piece.strip()!r} is no range of packet numbers, which count from 1: \"1-20,30,40-\"")
        found.append((low, high))
    return tuple(found)


# --- expectations -----------------------------------------------------------------------------------------------------


def _expect(node: Node | None, *, is_end: bool) -> Expect:
    if node is None:
        return Expect()
    if not is_end and not node.is_table:
        return Expect(verdict=_verdict(node))
    if not is_end and node.table and all(key in COUNTED for key in node.table):
        return Expect(verdict=_verdict(node))
    t = Table(node, "an expectation")
    verdict = None if is_end else t.take("verdict")
    maps = t.named("maps", lambda name, n: _map_expect(n))
    ring, perf = t.named("ring", lambda name, n: _events(n)), t.named("perf", lambda name, n: _events(n))
    trace = t.take("trace")
    reject, processed = (t.take("reject"), t.take("processed")) if is_end else (None, None)
    t.close()
    return Expect(
        None if verdict is None else _verdict(verdict),
        maps,
        ring,
        perf,
        None if trace is None else _trace(trace),
        None if reject is None else _reject(reject),
        None if processed is None else _processed(processed),
    )


def _verdict(node: Node) -> VerdictExpect:
    if node.is_table:
        for key, child in node.table.items():
            if key not in COUNTED:
                child.fail_key(f"verdicts are counted as {', '.join(COUNTED)}{did_you_mean(key, COUNTED)}")
            integer_of(child, key)
    elif node.is_array:
        for child in node.array:
            _check_verdict(child)
    else:
        _check_verdict(node)
    return VerdictExpect(node.plain(), node)


def _check_verdict(node: Node) -> None:
    if isinstance(node.value, str) and node.value in VERDICTS:
        return
    if isinstance(node.value, int) and not isinstance(node.value, bool) and node.value >= 0:
        return
    near = did_you_mean(node.value, VERDICTS) if isinstance(node.value, str) else ""
    node.fail(f"a verdict is \"accept\", \"drop\", \"unseen\" or the number of bytes kept{near}")


def _match(t: Table) -> bool:
    return t.choice("match", ("exact", "subset"), "exact") == "subset"


def _map_expect(node: Node) -> MapExpect:
    t = Table(node, "the contents of a map")
    entries, partly, count = t.take("entries"), _match(t), t.take("count")
    elements, has, lacks = t.take("elements"), t.take("has"), t.take("lacks")
    inner = t.named("inner", lambda name, n: _map_expect(n))
    t.close()
    if all(said is None for said in (entries, count, elements, has, lacks)) and not inner:
        others = "elements of queues and stacks, has and lacks of bloom filters, inner of maps of maps"
        node.fail(f"say entries, or count, or both; {others}")
    for word, values in (("elements", elements), ("values that it has", has), ("values that it lacks", lacks)):
        if values is not None:
            _list(values, word)
    said = None if entries is None else _entries(entries)
    number = None if count is None else integer_of(count, "count")
    return MapExpect(said, partly, number, node, entries, count, elements, has, lacks, inner)


def _events(node: Node) -> EventsExpect:
    t = Table(node, "events")
    records, partly, count = t.take("records"), _match(t), t.take("count")
    t.close()
    if records is None and count is None:
        node.fail("say records, or count, or both")
    if records is not None and not records.is_array:
        records.fail("records are a list, in the order they were written")
    said = None if records is None else tuple(n.plain() for n in records.array)
    return EventsExpect(said, partly, None if count is None else integer_of(count, "count"), node, records, count)


def _trace(node: Node) -> EventsExpect:
    """A list of lines, or a table as for events with ``lines``."""
    if node.is_array:
        return EventsExpect(tuple(text_of(n, "a line of trace output") for n in node.array), False, None, node, node, None)
    t = Table(node, "trace output")
    lines, partly, count = t.take("lines"), _match(t), t.take("count")
    t.close()
    if lines is None and count is None:
        node.fail("say lines, or count, or both")
    if lines is not None and not lines.is_array:
        lines.fail("lines are a list, in the order they were written")
    said = None if lines is None else tuple(text_of(n, "a line of trace output") for n in lines.array)
    return EventsExpect(said, partly, None if count is None else integer_of(count, "count"), node, lines, count)


def _reject(node: Node) -> RejectExpect:
    t = Table(node, "a rejection")
    errno, reason = t.take("errno"), t.take("reason")
    t.close()
    if errno is None and reason is None:
        node.fail("say errno, or reason, or both")
    number = 0 if errno is None else _errno(errno)
    return RejectExpect(number, "" if reason is None else text_of(reason, "reason"), node, errno, reason)


def _errno(node: Node) -> int:
    if isinstance(node.value, str):
        names = {name: number for number, name in errno_numbers.errorcode.items()} | {"ENOTSUPP": ENOTSUPP}
        if node.value not in names:
            node.fail(f"{node.value!r} is no errno{did_you_mean(node.value, names)}")
        return names[node.value]
    return integer_of(node, "errno", 1, 4095)


def _processed(node: Node) -> ProcessedExpect:
    if not node.is_table:
        exact = integer_of(node, "processed", 1)
        return ProcessedExpect(exact, exact, node)
    t = Table(node, "processed")
    low, high = t.integer("min", 0), t.integer("max", 1 << 62)
    t.close()
    if not node.table or low > high:
        node.fail("processed is a number, or { max = 100 }, with min or without")
    return ProcessedExpect(low, high, node)


