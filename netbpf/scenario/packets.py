"""The packets of a step -> records: hex digits, scapy expressions, packets of a capture. Builds bytes; runs no program but the
filter that chooses packets of a capture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache

from netbpf.abi.net import LINKTYPE_ETHERNET, LINKTYPE_USER0
from netbpf.packet.record import Record
from netbpf.scenario.model import Case, PacketSource, Step

MAX_PACKETS = 1_000_000


def records_of(case: Case, step: Step) -> Iterator[Record]:
    """The packets of a step in order. Raises SourceError, CaptureError, OSError, UsageError (no scapy, no libpcap)."""
    source = step.source
    if source is None:
        return
    if source.form == "capture":
        chosen = _captured(os.path.join(case.folder, source.text), source)
        if not chosen:
            source.node.fail("no packet of this capture is chosen")
        records: tuple[Record, ...] = chosen
    else:
        data, linktype = _built(source, bare=case.socket.kind == "unix")
        records = (Record(1, 0, max(step.wirelen, len(data)), data, linktype),)
    for _ in range(step.repeat):
        yield from records


def _built(source: PacketSource, *, bare: bool) -> tuple[bytes, int]:
    if source.form == "hex":
        return bytes.fromhex(source.text), LINKTYPE_USER0 if bare else LINKTYPE_ETHERNET
    from netbpf.scenario.scapy_expr import ExpressionError, build

    try:
        packet = build(source.text, bare=bare)
    except ExpressionError as e:
        node = source.node
        quoted = node.text.text[node.start : node.end]
        if e.end and not node.parameter and quoted[1:-1] == source.text:  # one line, and no escapes in it
            node.text.fail(str(e), node.start + 1 + e.start, node.start + 1 + e.end)
        node.fail(str(e))
    return packet.data, packet.linktype


@lru_cache(64)
def _read(path: str, stamp: tuple[int, int]) -> tuple[Record, ...]:
    from netbpf.packet.open import open_capture

    with open_capture(path) as reader:
        return tuple(batch.record(i) for batch in reader.batches(4096) for i in range(len(batch)))


def _captured(path: str, source: PacketSource) -> tuple[Record, ...]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        source.node.fail(f"there is no file {path}")
    records = _read(path, (status.st_mtime_ns, status.st_size))
    if source.ranges:
        records = tuple(r for r in records if any(low <= r.number <= high for low, high in source.ranges))
    if not source.filter:
        return records
    wanted: dict[int, Callable[[Record], bool]] = {}
    chosen = []
    for record in records:
        if record.linktype not in wanted:
            wanted[record.linktype] = _file_filter(source, record.linktype)
        if wanted[record.linktype](record):
            chosen.append(record)
    return tuple(chosen)


def _file_filter(source: PacketSource, linktype: int) -> Callable[[Record], bool]:
    """Whether a tcpdump expression takes a packet of a capture."""
    from netbpf.engine.interp.engine import InterpEngine
    from netbpf.env import SteppedEnv
    from netbpf.errors import SourceError
    from netbpf.packet.receive import receive
    from netbpf.replay.filtered import Expression

    try:
        program = Expression(source.filter).prove(linktype, further=True)
    except SourceError as e:
        (source.filter_node or source.node).fail(e.message)
    loaded = InterpEngine().load(program, SteppedEnv())

    def takes(record: Record) -> bool:
        skb = receive(record, view="file")
        return skb is not None and loaded.run_one(skb) & 0xFFFF_FFFF != 0

    return takes
