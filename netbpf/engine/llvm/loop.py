"""The packet loop in native code: records out of a window (or columns), the context each needs, the program inlined.

One function ``i64 @run(ptr args)`` per variant of where packets come from. The context is built by the rule of
``packet.receive`` and only as far as the program reads it (``Lowerer.used_meta``).
"""

from __future__ import annotations

from typing import Final

from netbpf.abi.net import (
    ETH_P_802_2,
    ETH_P_802_3,
    ETH_P_802_3_MIN,
    PACKET_BROADCAST,
    PACKET_HOST,
    PACKET_MULTICAST,
    PACKET_OTHERHOST,
    PACKET_OUTGOING,
    VLAN_HLEN,
)
from netbpf.engine.llvm import prefetch
from netbpf.engine.llvm.abi import (
    ARGS,
    META,
    META_BYTES,
    STATUS_COUNT,
    STATUS_END,
    STATUS_FAULT,
    STATUS_INTERFACE,
    STATUS_RECORD,
    STATUS_ROOM,
    STATUS_STRANGE,
    STATUS_TICK,
)
from netbpf.engine.llvm.context import writable
from netbpf.engine.llvm.fetch import COLUMNS, FETCHERS, carry_function, ns_stamp, stamp_ns
from netbpf.engine.llvm.ir import Function
from netbpf.engine.llvm.lowerer import Lowerer
from netbpf.engine.llvm.single import args_parameter, load_maps
from netbpf.engine.llvm.store import emit_columns, emit_room, emit_store
from netbpf.engine.llvm.variant import Variant
from netbpf.packet.record import OUTBOUND

MIN_FRAME_BYTES: Final = 20  # an Ethernet header, a VLAN tag and the type inside it
TPID_8021Q, TPID_8021AD = 0x0081, 0xA888 - 0x10000  # as the bytes lie in memory, read as i16
ARRIVAL_FIELDS: Final = ("pkt_type", "ingress_ifindex", "ifindex", "queue_mapping")


_SLOTS: Final = tuple(
    "pos n bytes acc trim last pf next caplen wirelen stamp pktlen pktcap interface direction option moved out seen "
    "row made done left written ran skipped".split()
)
_POINTERS: Final = ("pkt", "mac", "raw", "hdr")
_STATUS_OF: Final = {
    "full": STATUS_COUNT, "ended": STATUS_END, "tick": STATUS_TICK, "odd": STATUS_RECORD, "faulted": STATUS_FAULT,
    "room": STATUS_ROOM, "described": STATUS_INTERFACE, "strange": STATUS_STRANGE,
}  # fmt: skip
_TOTALS: Final = {
    "pos": "pos", "n": "packets", "bytes": "bytes", "acc": "accepted", "trim": "trimmed", "out": "out_used",
    "written": "out_packets", "skipped": "skipped",
}  # fmt: skip
_TIMES: Final = {"last": "last_ns", "stamp": "next_ns", "ran": "ran_ns"}


def emit_loop(lowerer: Lowerer, variant: Variant) -> str:
    """The packet loop, and the one that runs ahead of it where that pays."""
    before = [carry_function() if variant.tolerant else "", _scouts(lowerer, variant)]
    if lowerer.split is None:
        return "\n".join([*before, _loop(lowerer, variant).text()])
    if lowerer.in_lots:
        from netbpf.engine.llvm.lots import emit_lots

        return "\n".join([*before, emit_lots(lowerer, variant, lowerer.split)])
    from netbpf.engine.llvm.ahead import emit_led_loop

    return "\n".join([*before, emit_led_loop(lowerer, variant, lowerer.split)])


def _scouts(lowerer: Lowerer, variant: Variant) -> str:
    if not variant.scouted:
        return ""
    from netbpf.engine.llvm.kernels.scouts import CHAINS, FEW_CHAINS
    from netbpf.engine.llvm.scouted import emit_scouts

    return emit_scouts(variant, FEW_CHAINS if lowerer.in_lots else CHAINS)


def _loop(lowerer: Lowerer, variant: Variant) -> Loop:
    if variant.kind != "ring":
        return Loop(lowerer, variant)
    from netbpf.engine.llvm.ring import RingLoop

    return RingLoop(lowerer, variant)


class Loop:
    """Many packets: the walk, the context, the call, the counting."""

    prefetches = True

    def __init__(self, lowerer: Lowerer, variant: Variant) -> None:
        self.owner, self.variant = lowerer, variant
        self.used = lowerer.used_meta
        self.f = Function(f"define i64 @run({args_parameter(lowerer)}) nounwind")

    def text(self) -> str:
        f = self.f
        self._prologue()
        f.label("head")
        f.cond(f.op(f"icmp uge i64 {self.get('n')}, {self._max}"), "full", "fetch")
        f.label("fetch")
        self.look_ahead()
        self.fetch()
        f.label("frame")
        if self.variant.sharded:
            self.pass_over()
        self._context()
        f.label("go")
        self._call()
        self._count()
        for name, status in _STATUS_OF.items():
            f.label(name)
            f.store(64, str(status), f.gep("%a", ARGS["status"]), 8)
            f.br("leave")
        f.label("leave")
        self.at_end()
        for slot, field in _TOTALS.items():
            f.store(64, self.get(slot), f.gep("%a", ARGS[field]), 8)
        for slot, field in _TIMES.items():
            f.store(64, stamp_ns(self, self.get(slot)), f.gep("%a", ARGS[field]), 8)
        f.ret("i64 0")
        return f.text()

    def fetch(self) -> None:
        """The next packet, see ``fetch``."""
        FETCHERS[self.variant.kind](self)

    def look_ahead(self) -> None:
        """What there is to do with the packets from here on, before the next one is fetched."""

    def has_step(self) -> str:
        """i1: whether it is at this packet that scouts go on."""
        return "true"

    def at_end(self) -> None:
        """What there is to do before the totals are told."""

    def pass_over(self) -> None:
        """On to the next packet where this one is of another shard."""
        f = self.f
        passed = f"i64 {f.op(f'ptrtoint ptr {self.raw()} to i64')}, i64 {self.get('caplen')}, i64 {self.arg('link')}"
        flow = f.op(f"call i64 @flow_key({passed}, i64 {self.arg('typed')})")
        f.cond(f.test("eq", f.math("urem", flow, self.arg("shards")), self.arg("shard")), "mine", "others")
        f.label("others")
        self.set("skipped", f.math("add", self.get("skipped"), 1))
        self.set("pos", self.get("next"))
        f.br("head")
        f.label("mine")

    # --- set-up --------------------------------------------------------------------------------------------------------
    def arg(self, name: str) -> str:
        return self.f.load(64, self.f.gep("%a", ARGS[name]), 8)

    def arg_ptr(self, name: str) -> str:
        return self.f.op(f"load ptr, ptr {self.f.gep('%a', ARGS[name])}, align 8")

    def get(self, slot: str) -> str:
        return self.f.load(64, f"%{slot}.v", 8)

    def set(self, slot: str, value: str) -> None:
        self.f.store(64, value, f"%{slot}.v", 8)

    def get_ns(self) -> str:
        """The packet's time in nanoseconds."""
        return stamp_ns(self, self.get("stamp"))

    def raw(self) -> str:
        """The packet as the capture holds it."""
        return self.f.op("load ptr, ptr %raw.v")

    def set_raw(self, at: str) -> None:
        self.f.do(f"store ptr {at}, ptr %raw.v")

    def header(self) -> str:
        """What a ring says of the packet."""
        return self.f.op("load ptr, ptr %hdr.v")

    def set_header(self, at: str) -> None:
        self.f.do(f"store ptr {at}, ptr %hdr.v")

    def _prologue(self) -> None:
        f = self.f
        for slot in _SLOTS:
            f.lines.append(f"  %{slot}.v = alloca i64")
        for pointer in _POINTERS:
            f.lines.append(f"  %{pointer}.v = alloca ptr")
        f.lines.append(f"  %meta = alloca [{META_BYTES} x i8], align 8")
        load_maps(f, len(self.owner.program.maps))
        self._defaults = defaults = self.arg_ptr("meta")
        f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr align 8 %meta, ptr align 8 {defaults}, i64 {META_BYTES}, i1 false)")
        self.queue = f.load(64, f.gep(defaults, META["queue_mapping"]), 8)
        self.buf, self.end, self._max = self.arg_ptr("buf"), self.arg("end"), self.arg("max_packets")
        self.snaplen, self.max_caplen, self.scale = self.arg("snaplen"), self.arg("max_caplen"), self.arg("ts_scale")
        if self.variant.kind == "pcap":
            self.usual_caplen = f.select(f.test("ult", self.snaplen, self.max_caplen), 64, self.snaplen, self.max_caplen)
            self.units = f.math("udiv", 1_000_000_000, self.scale)
        self.stop = ns_stamp(self, self.arg("stop_ns"))
        self._scratch, self._mac = self.arg_ptr("scratch"), self.arg("device_mac")
        if self.variant.kind == "columns":
            self.columns = {n: self.arg_ptr(f"{n}_col") for n in COLUMNS}
        if self.variant.results:
            self.results = {n: self.arg_ptr(n) for n in ("verdict_col", "kept_col", "trimmed_col")}
        if self.variant.output:
            self.out, self.out_size = self.arg_ptr("out"), self.arg("out_size")
        self.layouts, self.n_layouts = self.arg_ptr("layouts"), self.arg("n_layouts")
        for slot in _SLOTS:
            self.set(slot, "0")
        pos = self.first()
        self.set("pos", pos)
        prefetch.begin(self, pos)
        self.set("out", self.arg("out_used"))

    def first(self) -> str:
        """Where in the window it begins."""
        return self.arg("pos")

    # --- context -------------------------------------------------------------------------------------------------------
    def put(self, field: str, value: str) -> None:
        self.f.store(64, value, self.f.gep("%meta", META[field]), 8)

    def _needs(self, *fields: str) -> bool:
        """Whether the program, or Python called back from it, may read one of these."""
        return self.owner.may_fault or bool(self.used & set(fields))

    def _context(self) -> None:
        """skb->len, the bytes at hand, and the Meta fields that the program reads. Frames under MIN_FRAME_BYTES, whose
        headers are not all there, are left to Python, but where nothing looks at a header."""
        f = self.f
        if self.variant.output:
            emit_room(self)
        least = MIN_FRAME_BYTES if self.reads_frame() else 0
        f.cond(f.op(f"icmp ult i64 {self.get('caplen')}, {least}"), "odd", "usual")
        f.label("usual")
        if self.owner.may_fault:
            f.store(64, "0", f.gep("%a", ARGS["tail_calls"]), 8)
        if self._needs("cb"):
            f.do(f"call void @llvm.memset.p0.i64(ptr align 8 {f.gep('%meta', META['cb0'])}, i8 0, i64 24, i1 false)")
        # what the packet before may have left there
        for field in sorted(writable(self.owner) if self.owner.may_fault else self.owner.written_meta):
            self.put(field, f.load(64, f.gep(self._defaults, META[field]), 8))
        if self.variant.trace_clock and (self.owner.may_fault or "now_ns" in self.owner.used_args):
            self.set_clock()
        caplen, wirelen = self.get("caplen"), self.get("wirelen")
        self.set("pktcap", caplen)
        self.set("pktlen", f.select(f.op(f"icmp ugt i64 {caplen}, {wirelen}"), 64, caplen, wirelen))
        self._untag()
        self.put_context()

    def put_context(self) -> None:
        """The Meta fields that the frame, its record and its device tell."""
        if self._needs("tstamp"):
            self.put("tstamp", self.get_ns())
        if self._needs("wire_len"):
            self.put("wire_len", self.get("pktlen"))
        if self._needs("protocol") and self.variant.ethernet:
            self._protocol()
        if self._needs(*ARRIVAL_FIELDS):
            self._arrival()

    def set_clock(self) -> None:
        """The time that the program is told is the packet's."""
        self.f.store(64, self.packet_clock(), self.f.gep("%a", ARGS["now_ns"]), 8)

    def packet_clock(self) -> str:
        return self.get_ns()

    def reads_frame(self) -> bool:
        """Whether the context takes facts from the frame's bytes."""
        wanted = self._needs("protocol", *ARRIVAL_FIELDS)
        return not self.variant.in_file or (self.variant.ethernet and wanted)

    def _untag(self) -> None:
        """Move an outer VLAN tag out of the frame: Meta holds it, and %pkt starts 4 bytes later than %mac. In a file it stays."""
        f = self.f
        f.do(f"store ptr {self.raw()}, ptr %pkt.v")
        if self.variant.in_file:
            f.do(f"store ptr {self.raw()}, ptr %mac.v")
            return
        pkt, tagged = self.tagged()
        wanted = self._needs("vlan_present", "vlan_tci", "vlan_proto")
        if wanted:
            for field in ("vlan_present", "vlan_tci", "vlan_proto"):
                self.put(field, "0")
        self.set("moved", "0")
        f.do(f"store ptr {pkt}, ptr %mac.v")
        # a branch, as it is foreseen nearly always: a select would have every load of the program wait for the tag's
        f.unlikely(tagged, "tagged", "untagged")
        f.label("tagged")
        if wanted:
            for field, value in self._tag(pkt).items():
                self.put(field, value)
        self.set("moved", str(VLAN_HLEN))
        self.set("pktcap", f.op(f"sub i64 {self.get('pktcap')}, {VLAN_HLEN}"))
        self.set("pktlen", f.op(f"sub i64 {self.get('pktlen')}, {VLAN_HLEN}"))
        if self.owner.wants_flat:
            self._close_gap(pkt)
        else:
            f.do(f"store ptr {f.gep(pkt, VLAN_HLEN)}, ptr %pkt.v")
        f.label("untagged")

    def tagged(self) -> tuple[str, str]:
        """The frame, and whether a tag is in it."""
        f = self.f
        pkt = f.op("load ptr, ptr %pkt.v")
        tpid = f.load(16, f.gep(pkt, 12))
        tests = (f.op(f"icmp eq i16 {tpid}, {TPID_8021Q}"), f.op(f"icmp eq i16 {tpid}, {TPID_8021AD}"))
        return pkt, f.op(f"or i1 {tests[0]}, {tests[1]}")

    def _tag(self, pkt: str) -> dict[str, str]:
        """What Meta says of the tag in a frame."""
        f = self.f
        tci = f.zext(f.bswap(f.load(16, f.gep(pkt, 14)), 16), 16)
        return {"vlan_present": "1", "vlan_tci": tci, "vlan_proto": f.zext(f.load(16, f.gep(pkt, 12)), 16)}

    def _close_gap(self, pkt: str) -> None:
        """The packet in one piece: a copy without the tag."""
        f = self.f
        f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {self._scratch}, ptr {pkt}, i64 12, i1 false)")
        rest = f.op(f"sub i64 {self.get('pktcap')}, 12")
        f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {f.gep(self._scratch, 12)}, ptr {f.gep(pkt, 16)}, i64 {rest}, i1 false)")
        f.do(f"store ptr {self._scratch}, ptr %pkt.v")
        f.do(f"store ptr {self._scratch}, ptr %mac.v")

    def _protocol(self) -> None:
        """As ``receive.frame_protocol``: an EtherType, or what a length field stands for; in network byte order."""
        f = self.f
        pkt = f.op("load ptr, ptr %pkt.v")
        raw = f.load(16, f.gep(pkt, 12))
        self.put("protocol", f.zext(raw, 16))
        f.cond(f.op(f"icmp uge i16 {f.bswap(raw, 16)}, {ETH_P_802_3_MIN}"), "typed", "length")
        f.label("length")
        is_raw = f.op(f"icmp eq i16 {f.load(16, f.gep(pkt, 14))}, -1")
        self.put("protocol", f.select(is_raw, 64, str(ETH_P_802_3 << 8), str(ETH_P_802_2 << 8)))
        f.label("typed")

    def _arrival(self) -> None:
        """As ``receive.mac_pkt_type``, and the interface; an outgoing packet (its row says so) came in nowhere."""
        f = self.f
        kind = self._kind() if self.variant.ethernet else str(PACKET_HOST)
        device = ingress = f.op(f"add i64 {self.arg('ifindex')}, {self.get('interface')}")
        if self.variant.kind != "pcap":
            out = f.op(f"icmp eq i64 {self.get('direction')}, {OUTBOUND}")
            kind = f.select(out, 64, str(PACKET_OUTGOING), kind)
            ingress = f.select(out, 64, "0", ingress)
            self.put("queue_mapping", f.select(out, 64, "0", self.queue))
        self.put("pkt_type", kind)
        self.put("ifindex", device)
        self.put("ingress_ifindex", ingress)

    def _kind(self) -> str:
        """pkt_type by the destination address."""
        f = self.f
        pkt = f.op("load ptr, ptr %mac.v")
        low, high = f.zext(f.load(32, pkt), 32), f.zext(f.load(16, f.gep(pkt, 4)), 16)
        mac = f.op(f"or i64 {low}, {f.op(f'shl i64 {high}, 32')}")
        group = f.op(f"icmp ne i64 {f.op(f'and i64 {mac}, 1')}, 0")
        everyone = f.op(f"icmp eq i64 {mac}, {0xFFFF_FFFF_FFFF}")
        ours = f.op(f"or i1 {f.op(f'icmp eq i64 {mac}, {self._mac}')}, {f.op(f'icmp eq i64 {self._mac}, -1')}")
        single = f.select(ours, 64, str(PACKET_HOST), str(PACKET_OTHERHOST))
        return f.select(group, 64, f.select(everyone, 64, str(PACKET_BROADCAST), str(PACKET_MULTICAST)), single)

    # --- the program and what became of the packet -------------------------------------------------------------------------
    def load_packet(self) -> None:
        """The packet at hand as functions of the program take it."""
        for line in ("pkt = load ptr, ptr %pkt.v", "mac = load ptr, ptr %mac.v", "len = load i64, ptr %pktlen.v"):
            self.f.do("%" + line)
        self.f.do("%cap = load i64, ptr %pktcap.v")

    def _call(self) -> None:
        f = self.f
        self.load_packet()
        if not self.owner.may_fault:
            self._count_bytes()  # while wirelen is at hand: what the program needs leaves no register for it
        r0 = self.run_program()
        self._verdict = f.op(f"and i64 {r0}, 4294967295")
        if self.owner.may_fault:
            f.cond(f.op(f"icmp eq i64 {self.arg('fault')}, 0"), "counted", "faulted")
            f.label("counted")
            self._count_bytes()

    def run_program(self) -> str:
        """R0 for the packet at hand."""
        return self.f.op(f"call i64 @prog({self.owner.around.passed})")

    def _count_bytes(self) -> None:
        self.set("bytes", self.f.math("add", self.get("bytes"), self.get("wirelen")))

    def _count(self) -> None:
        f, v = self.f, self._verdict
        n = self.get("n")
        accepted = f.op(f"icmp ne i64 {v}, 0")
        short = f.op(f"icmp ult i64 {v}, %len")
        trimmed = f.zext(f.op(f"and i1 {accepted}, {short}"), 1)
        if self.variant.results:
            emit_columns(self, v, short, trimmed)
        self.set("acc", f.op(f"add i64 {self.get('acc')}, {f.zext(accepted, 1)}"))
        self.set("trim", f.op(f"add i64 {self.get('trim')}, {trimmed}"))
        stamp, last = self.get("stamp"), self.get("last")
        self.set("last", f.select(f.op(f"icmp ugt i64 {stamp}, {last}"), 64, stamp, last))
        self.set("n", f.op(f"add i64 {n}, 1"))
        self.set("pos", self.get("next"))
        self.set("ran", stamp)
        if self.variant.output:
            emit_store(self, v, accepted, short)
        else:
            f.br("head")
