"""The native packet loop from Python's side: batches and windows of captures, what is counted and written on the way."""

from __future__ import annotations

import ctypes
from array import array
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from netbpf.abi.net import LINK_HEADER_BYTES, LINKTYPE_ETHERNET
from netbpf.engine.llvm import scouting
from netbpf.engine.llvm.abi import (
    ARGS,
    META_BYTES,
    STATUS_COUNT,
    STATUS_INTERFACE,
    STATUS_ROOM,
    STATUS_STRANGE,
    STATUS_TICK,
)
from netbpf.engine.llvm.program import NEVER_NS, Code, NativeProgram, address_of
from netbpf.engine.llvm.variant import Variant, link_words
from netbpf.isa.opcodes import BPF_CALL, BPF_JMP, bpf_class, bpf_op
from netbpf.packet.layout import LAYOUT_ROW_WORDS, RecordLayout

if TYPE_CHECKING:  # a filter that walks windows starts without what batches and odd packets take
    from netbpf.engine.results import Totals, Verdicts
    from netbpf.env import Env
    from netbpf.maps.base import Map
    from netbpf.packet.batch import PacketBatch
    from netbpf.packet.capture import Walkable
    from netbpf.packet.device import Device
    from netbpf.packet.sink import CaptureWriter

NO_LIMIT: Final = 1 << 62
ANY_MAC: Final = 0xFFFF_FFFF_FFFF_FFFF
OUTPUT_BYTES: Final = 1 << 20
LOOK_AGAIN_BYTES: Final = 1 << 26
_PACKETS: Final = ARGS["packets"] >> 3  # the first of packets bytes accepted trimmed last_ns next_ns ran_ns status


class _Prepared(NamedTuple):
    """A layout of windows, where accepted packets are written, the code that walks the windows, the table of interfaces, and
    the room for what is written."""

    layout: RecordLayout
    device: Device
    output: CaptureWriter | None
    variant: Variant
    code: Code
    rows: Any
    room: Any


class _Columns:
    """Room for the verdicts of ``rows`` packets, moved on to a ``Verdicts`` after each step."""

    rows = 1 << 16

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts
        self._room = (array("I", bytes(4 * self.rows)), array("I", bytes(4 * self.rows)))
        self._flags = bytearray(self.rows)
        address, self._keep = address_of(self._flags)
        first, second = (column.buffer_info()[0] for column in self._room)
        self.addresses = {"verdict_col": first, "kept_col": second, "trimmed_col": address}

    def take(self, packets: int) -> None:
        """The first ``packets`` rows are filled."""
        self._verdicts.verdict += self._room[0][:packets]
        self._verdicts.kept += self._room[1][:packets]
        self._verdicts.trimmed += self._flags[:packets]


class NativeLoaded(NativeProgram):
    """A program as native code that runs many packets a call."""

    _prepared: _Prepared | None
    _looked_at = -LOOK_AGAIN_BYTES  # where in the capture it was last seen whether records are large
    _tolerant = False  # strange records were seen
    shard = shards = 0  # of windows only the packets whose flow modulo ``shards`` is ``shard`` run; 0: all do

    def run(self, batch: PacketBatch) -> Verdicts:
        """Run every packet of the batch in order. Raises EngineFault."""
        from netbpf.engine.results import Verdicts

        n = len(batch)
        out = Verdicts(array("I", bytes(4 * n)), array("I", bytes(4 * n)), bytearray(n))
        done = 0
        while done < n:
            if self._is_walked(batch.linktype):
                done = self._run_rows(batch, out, done)
            if done < n:
                self._run_row_slowly(batch, out, done)
                done += 1
        return out

    def _run_rows(self, batch: PacketBatch, out: Verdicts, first: int) -> int:
        """Rows from ``first`` on until one that native code leaves to Python; its index."""
        code = self._code(self._variant_of("columns", batch.linktype)._replace(results=True))
        self._prepared = None
        buffer, keep = address_of(batch.buffer)
        self._defaults(batch.linktype)
        results = ((out.verdict, "verdict_col", 4), (out.kept, "kept_col", 4))
        for column, name, size in results:
            self._set(name, column.buffer_info()[0] + size * first)
        flags, keep_flags = address_of(out.trimmed)
        directions, keep_directions = address_of(batch.direction or bytearray(len(batch)))
        self._set("trimmed_col", flags + first)
        self._set("direction_col", directions)
        for name in ("offset", "caplen", "wirelen", "interface"):
            self._set(f"{name}_col", getattr(batch, name).buffer_info()[0])
        self._set("ts_col", batch.ts_ns.buffer_info()[0])
        self._set_all(buf=buffer, pos=first, end=len(batch), stop_ns=NEVER_NS, max_packets=NO_LIMIT)
        self._call(code)
        del keep, keep_flags, keep_directions
        done = self._get("pos")
        if self._trace_clock and done > first:
            env: Any = self.env
            env.set_time(batch.ts_ns[done - 1])
        return done

    def _run_row_slowly(self, batch: PacketBatch, out: Verdicts, i: int) -> None:
        """A row that native code left: built by ``receive``; a frame that reaches no socket counts as dropped."""
        from netbpf.packet.receive import receive

        record = batch.record(i)
        skb = receive(record, self.device, self.view)
        if skb is None:
            return
        if self._trace_clock:
            env: Any = self.env
            env.set_time(record.ts_ns)
        verdict = self.run_one(skb) & 0xFFFF_FFFF
        out.verdict[i], out.kept[i] = verdict, min(verdict, skb.len)
        out.trimmed[i] = 0 < verdict < skb.len

    def _is_walked(self, linktype: int) -> bool:
        """Whether native code knows the packets of a link type: a file's as they lie there, for a socket Ethernet frames."""
        return self.view == "file" or (self.view == "packet_raw" and linktype == LINKTYPE_ETHERNET)

    def _variant_of(self, kind: str, linktype: int) -> Variant:
        """The loop for packets of a link type."""
        sharded = bool(self.shards) and kind != "columns"
        ethernet = linktype == LINKTYPE_ETHERNET
        return self._variant(kind)._replace(in_file=self.view == "file", ethernet=ethernet, sharded=sharded)

    def _defaults(self, linktype: int) -> None:
        """Meta and Args as every frame of this link type on this device has them."""
        d = self.device
        ctypes.memset(self._meta, 0, META_BYTES)
        for name in ("queue_mapping", "napi_id", "hash", "mark", "priority"):
            self._set_meta(name, getattr(d, name))
        for name in ("network_header", "transport_header"):
            self._set_meta(name, LINK_HEADER_BYTES.get(linktype, 0))
        link, typed = link_words(linktype)
        self._set_all(shard=self.shard, shards=self.shards, link=link, typed=typed)
        self._set("meta", ctypes.addressof(self._meta))
        self._set("ifindex", d.ifindex)
        self._set("device_mac", ANY_MAC if d.mac is None else int.from_bytes(d.mac, "little"))

    def can_walk(self, layout: RecordLayout) -> bool:
        """Whether ``walk`` takes windows of this layout: some interface gives packets that native code knows."""
        return bool(layout.interfaces) and self._is_walked(_walked_linktype(layout))

    def walk(
        self,
        window: Walkable,
        totals: Totals,
        *,
        stop_ns: int = NEVER_NS,
        max_packets: int = NO_LIMIT,
        output: CaptureWriter | None = None,
        verdicts: Verdicts | None = None,
    ) -> int | None:
        """See WindowWalker."""
        columns = None if verdicts is None else _Columns(verdicts)
        while True:
            code = self._ready(window.layout, output, columns is not None, window)
            most = max_packets if columns is None else min(max_packets, columns.rows)
            packets, status = self._step(code, window, totals, stop_ns, most, columns)
            max_packets -= packets
            if columns is not None:
                columns.take(packets)
            if output is not None:
                self._empty(output, status)
            if status == STATUS_TICK:
                return self._get("next_ns")
            if status == STATUS_STRANGE:
                assert self._prepared is not None
                self._tolerant = True
                self._prepared = self._prepare(window.layout, output, scouted=self._prepared.variant.scouted)
                continue
            goes_on = status in (STATUS_ROOM, STATUS_INTERFACE) or (status == STATUS_COUNT and columns is not None)
            if not goes_on or not max_packets:
                return None

    def _step(
        self, code: Code, window: Walkable, totals: Totals, stop_ns: int, most: int, columns: _Columns | None
    ) -> tuple[int, int]:
        """One call into native code; how many packets it ran and why it stopped."""
        args, start = self._args, window.start
        fixed = getattr(window, "address", 0)  # of memory that stays where it is: a ring's
        buffer, keep = (fixed, None) if fixed else address_of(window.buffer)
        # rows of ARGS, one after the other: a step of a replay is short, and this is most of what it costs
        args[0:5] = [buffer, start, window.end, stop_ns, most]
        if columns is not None:
            self._set_all(**columns.addresses)
        self._set("meta", ctypes.addressof(self._meta))  # a call back leaves that of its packet there
        self._call(code)
        del keep
        packets, size, accepted, trimmed, last_ns, _, ran_ns, status = args[_PACKETS : _PACKETS + 8]
        window.advance(args[1] - start, packets + (self._get("skipped") if self.shards else 0))
        totals.packets += packets
        totals.bytes += size
        totals.accepted += accepted
        totals.dropped += packets - accepted
        totals.trimmed += trimmed
        totals.last_ns = max(totals.last_ns, last_ns)
        if self._trace_clock and packets:
            env: Any = self.env
            env.set_time(ran_ns)
        return packets, status

    def _empty(self, output: CaptureWriter, status: int) -> None:
        """Hand on what was written, and describe the interface that the last record is the first of."""
        assert self._prepared is not None
        prepared, used, written = self._prepared, self._get("out_used"), self._get("out_packets")
        with memoryview(prepared.room).cast("B") as room:
            if status == STATUS_INTERFACE:
                mark, row = self._get("out_mark"), self._get("out_interface")
                output.append_raw(room[:mark], written - 1)
                layout = prepared.layout
                number = output.interface_number(layout.interfaces[row].linktype, layout.first_interface + row)
                prepared.rows[LAYOUT_ROW_WORDS * row + 5] = number + 1
                room[mark + 8 : mark + 12] = number.to_bytes(4, "little")
                output.append_raw(room[mark:used], 1)
            elif written:
                output.append_raw(room[:used], written)
        self._set("out_used", 0)

    def _ready(self, layout: RecordLayout, output: CaptureWriter | None, results: bool, window: Walkable) -> Code:
        """The code for windows of this layout as this one is, Args made ready for it."""
        known = self._prepared
        is_new = known is None or known.output is not output or known.device is not self.device or (
            layout is not known.layout and layout != known.layout
        )
        is_scouted = known is not None and known.variant.scouted
        scouted = is_scouted or self._wants_scouts(window)
        if known is None or is_new or scouted != is_scouted:
            known = self._prepared = self._prepare(layout, output, scouted=scouted)
        if results:
            return self._code(known.variant._replace(results=True))
        return known.code

    def _prepare(self, layout: RecordLayout, output: CaptureWriter | None, *, scouted: bool) -> _Prepared:
        """What stays the same from window to window of one layout, into Args."""
        linktype = _walked_linktype(layout)
        variant = Variant.of_layout(layout, self._variant_of(layout.kind, linktype))
        variant = variant._replace(scouted=scouted, tolerant=self._tolerant and layout.kind == "pcap")
        if output is not None:
            variant = variant._replace(output=output.kind, output_unit_ns=output.unit_ns)
        code = self._code(variant)
        self._defaults(linktype)
        rows = self._layouts(layout)
        first = layout.interfaces[0]
        room = ctypes.create_string_buffer(OUTPUT_BYTES if output is not None else 1)
        self._set_all(
            snaplen=first.snaplen, max_caplen=layout.max_caplen, ts_scale=first.ts_multiplier, layouts=ctypes.addressof(rows),
            n_layouts=len(layout.interfaces), first_interface=layout.first_interface,
            out=ctypes.addressof(room), out_size=len(room), out_used=0,
        )  # fmt: skip
        return _Prepared(layout, self.device, output, variant, code, rows, room)

    def _wants_scouts(self, window: Walkable) -> bool:
        """Whether the records of a large capture are large here. It is looked at now and then: a step of a replay is short."""
        if window.layout.kind not in ("pcap", "pcapng") or len(window.buffer) < scouting.SCOUTED_BYTES:
            return False
        if self._looked_at <= window.start < self._looked_at + LOOK_AGAIN_BYTES:
            return False
        self._looked_at = window.start
        return scouting.wants_scouts(window.buffer, window.start, window.end, window.layout)

    def prepare(self, layout: RecordLayout, *, scouted: bool) -> None:
        """Have code for windows of this layout at hand, with or without scouts where there is none yet."""
        if self._prepared is None or self._prepared.layout != layout:
            self._prepared = self._prepare(layout, None, scouted=scouted)

    def on_maps(self, maps: tuple[Map, ...], env: Env) -> NativeLoaded:
        """The same program, and the same code, on other maps of the same shapes."""
        other = NativeLoaded(
            self.program._replace(maps=maps),
            env,
            device=self.device,
            use_cache=self._use_cache,
            checked=self._checked,
            view=self.view,
            effort=self._effort,
        )
        other._codes = self._codes
        return other

    def left_behind(self) -> tuple[Any, ...] | None:
        """What ``replay.quick`` needs to walk plain pcap windows as this has just done: machine code, its entry, its places to
        fill in, the argument block, the context, the block's fields. None where there is more to it."""
        prepared = self._prepared
        if prepared is None or prepared.layout.kind != "pcap" or prepared.output is not None or self.program.maps:
            return None
        v, code = prepared.variant, prepared.code
        calls = any(bpf_class(i.code) == BPF_JMP and bpf_op(i.code) == BPF_CALL for i in self.program.insns)
        if v.big_endian or v.wirelen_first or v.header_bytes != 16 or not v.ethernet:
            return None
        if calls or code.calls_back or code.is_checked or v.results:
            return None
        mapped = code.mapped
        if not mapped.is_movable:
            return None
        fields = {name: at >> 3 for name, at in ARGS.items()}
        image = bytes(mapped.memory)
        return image, mapped.offsets["run"], mapped.stubs, bytes(self._args), bytes(self._meta), fields

    def _layouts(self, layout: RecordLayout) -> Any:
        """The table of interfaces for a loop over windows; see capture.LAYOUT_ROW_WORDS."""
        rows = (ctypes.c_uint64 * (LAYOUT_ROW_WORDS * len(layout.interfaces)))()
        for k, i in enumerate(layout.interfaces):
            usable = i.linktype == _walked_linktype(layout) and i.ts_multiplier * i.ts_divisor <= NEVER_NS
            row: list[Any] = [usable, i.snaplen, i.ts_multiplier & NEVER_NS, i.ts_divisor & NEVER_NS, i.ts_offset_ns & NEVER_NS]
            rows[LAYOUT_ROW_WORDS * k : LAYOUT_ROW_WORDS * k + 5] = row
        return rows


def _walked_linktype(layout: RecordLayout) -> int:
    """The link type of the records that a loop walks, the rest being left to Python: Ethernet where an interface has it."""
    linktypes = [i.linktype for i in layout.interfaces]
    return LINKTYPE_ETHERNET if LINKTYPE_ETHERNET in linktypes else linktypes[0]
