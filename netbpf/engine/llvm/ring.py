"""The loop's next packet out of a block of a TPACKET_V3 ring, and its context, which the ring's headers tell.

Nothing is guessed from the frame: protocol, packet type, device and the VLAN tag are the kernel's. The tag is put back into the
frame, as libpcap does, in the room that the ring reserves before it: so the rest of the loop, and a written capture, have a
packet as any other. That is done once: a status bit says so when a packet is met again.
"""

from __future__ import annotations

from typing import Final

from netbpf.abi.net import PACKET_OUTGOING
from netbpf.abi.sockopt import TP_STATUS_VLAN_VALID
from netbpf.engine.llvm.fetch import stop_at_tick
from netbpf.engine.llvm.loop import Loop
from netbpf.engine.llvm.prefetch import emit_prefetch
from netbpf.packet import ring

CLOCK_OFFSET: Final = 32  # of the table's row of the ring's one interface
VLAN_HLEN: Final = 4


class RingLoop(Loop):
    """The packets of a block."""

    def fetch(self) -> None:
        """As ``fetch`` has it; the last packet of a block has no next one."""
        f = self.f
        pos = self.get("pos")
        f.cond(f.test("uge", pos, self.end), "ended", "held")
        f.label("held")
        at = f.gep(self.buf, pos)
        self.set_header(at)
        _put_tag_back(self, at)
        f.label("framed")
        far = _u32(self, at, ring.OFF_NEXT)
        self.set("next", f.select(f.test("eq", far, 0), 64, self.end, f.math("add", pos, far)))
        self.set("caplen", _u32(self, at, ring.OFF_SNAPLEN))
        self.set("wirelen", _u32(self, at, ring.OFF_LEN))
        seconds = f.math("mul", _u32(self, at, ring.OFF_SEC), 1_000_000_000)
        self.set("stamp", f.math("add", seconds, _u32(self, at, ring.OFF_NSEC)))
        self.set_raw(f.gep(at, _u16(self, at, ring.OFF_MAC)))
        stop_at_tick(self)
        emit_prefetch(self, pos)

    def reads_frame(self) -> bool:
        return False

    def tagged(self) -> tuple[str, str]:
        """A packet that came with a tag beside it is. One in the frame only was not the kernel's to move."""
        f = self.f
        status = _u32(self, self.header(), ring.OFF_STATUS)
        return f.op("load ptr, ptr %pkt.v"), f.test("ne", f.math("and", status, ring.TAG_PUT_BACK), 0)

    def put_context(self) -> None:
        """The Meta fields that the ring tells."""
        f, at = self.f, self.header()
        self.put("protocol", _u16(self, at, ring.OFF_PROTOCOL))
        kind = f.zext(f.load(8, f.gep(at, ring.OFF_PKTTYPE)), 8)
        outgoing = f.test("eq", kind, PACKET_OUTGOING)
        device = _u32(self, at, ring.OFF_IFINDEX)
        self.put("pkt_type", kind)
        self.put("ifindex", device)
        self.put("ingress_ifindex", f.select(outgoing, 64, "0", device))
        self.put("queue_mapping", f.select(outgoing, 64, "0", self.queue))
        moved = self.get("moved")  # by so much the frame starts earlier than the kernel says
        network = f.math("sub", f.math("sub", _u16(self, at, ring.OFF_NET), _u16(self, at, ring.OFF_MAC)), moved)
        for field in ("network_header", "transport_header"):
            self.put(field, network)

    def packet_clock(self) -> str:
        """The packet's arrival by the clock of programs."""
        return self.f.math("add", self.get("stamp"), self.f.load(64, self.f.gep(self.layouts, CLOCK_OFFSET), 8))


def _u32(p: Loop, at: str, off: int) -> str:
    return p.f.zext(p.f.load(32, p.f.gep(at, off)), 32)


def _u16(p: Loop, at: str, off: int) -> str:
    return p.f.zext(p.f.load(16, p.f.gep(at, off)), 16)


def _put_tag_back(p: Loop, at: str) -> None:
    """The two addresses 4 bytes earlier, TPID and TCI behind them; lengths and offsets as the packet has them then."""
    f = p.f
    status = _u32(p, at, ring.OFF_STATUS)
    has_tag = f.test("ne", f.math("and", status, TP_STATUS_VLAN_VALID), 0)
    f.unlikely(has_tag, "beside", "framed")
    f.label("beside")
    mac = _u16(p, at, ring.OFF_MAC)
    old = f.gep(at, mac)
    new = f.gep(old, -VLAN_HLEN)
    low, high = f.load(64, old), f.load(32, f.gep(old, 8))
    f.store(64, low, new)
    f.store(32, high, f.gep(new, 8))
    f.store(16, f.bswap(f.load(16, f.gep(at, ring.OFF_VLAN_TPID)), 16), f.gep(new, 12))
    f.store(16, f.bswap(f.load(16, f.gep(at, ring.OFF_VLAN_TCI)), 16), f.gep(new, 14))
    f.store(16, f.trunc(f.math("sub", mac, VLAN_HLEN), 16), f.gep(at, ring.OFF_MAC))
    for off in (ring.OFF_SNAPLEN, ring.OFF_LEN):
        f.store(32, f.trunc(f.math("add", _u32(p, at, off), VLAN_HLEN), 32), f.gep(at, off))
    marked = f.math("or", f.math("and", status, ~TP_STATUS_VLAN_VALID & 0xFFFF_FFFF), ring.TAG_PUT_BACK)
    f.store(32, f.trunc(marked, 32), f.gep(at, ring.OFF_STATUS))
    f.br("framed")
