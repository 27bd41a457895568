"""Any bytes at all: a reader gives packets and at most one CaptureError, the same by every way of reading."""

from __future__ import annotations

import gzip
import io
import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.vectors import ROOT

from netbpf.errors import CaptureError
from netbpf.packet.open import open_capture
from netbpf.packet.receive import VIEWS, is_receivable, receive
from netbpf.packet.record import Record

SEEDS = [
    (ROOT / "pcaps" / name).read_bytes()[:3000]
    for name in (
        "vlan.pcap",
        "big-endian.pcap",
        "modified.pcap",
        "two-interfaces.pcapng",
        "block-kinds.pcapng",
        "sections.pcapng",
    )
]
WORDS = st.sampled_from([0, 1, 2, 3, 6, 12, 28, 32, 0xFFFF, 262144, 262145, 1 << 24, 0x7FFFFFFF, 0xFFFFFFFF, 0x0A0D0D0A])


@st.composite
def wounded(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                data[at] = draw(st.integers(0, 255))
            case 1:
                order = draw(st.sampled_from("<>"))
                data[at & ~3 : (at & ~3) + 4] = struct.pack(order + "I", draw(WORDS))
            case 2:
                del data[at : at + draw(st.integers(1, 16))]
            case _:
                data[at:at] = draw(st.binary(max_size=16))
        if not data:
            return b""
    return bytes(data)


def read_all(data: bytes, *, batches: bool) -> tuple[list[Record], str]:
    got: list[Record] = []
    try:
        reader = open_capture(io.BytesIO(data))
        if batches:
            for b in reader.batches(max_packets=7):
                got += [
                    Record(b.first_number + i, b.ts_ns[i], b.wirelen[i], b.data(i), b.linktype, b.interface[i], b.direction[i])
                    for i in range(len(b))
                ]
        else:
            got.extend(r._replace(ts_ns=r.ts_ns & (1 << 64) - 1) for r in reader)
    except CaptureError as e:
        return got, str(e)
    return got, ""


@settings(max_examples=300)
@given(st.one_of(wounded(), st.binary(max_size=200)))
@example(b"")
@example(b"\x1f\x8b")
@example(b"\x1f\x8b\x08\x00")
def test_any_bytes(data: bytes) -> None:
    by_records = read_all(data, batches=False)
    assert read_all(data, batches=True) == by_records
    assert sum(len(r.data) for r in by_records[0]) <= len(data) or data.startswith(b"\x1f\x8b")


@settings(max_examples=100)
@given(wounded(), st.data())
def test_any_bytes_in_gzip(data: bytes, choose: st.DataObject) -> None:
    squeezed = bytearray(gzip.compress(data, 1))
    at = choose.draw(st.integers(0, len(squeezed) - 1))
    squeezed[at] ^= choose.draw(st.integers(1, 255))
    read_all(bytes(squeezed[: choose.draw(st.integers(at, len(squeezed)))]), batches=False)


RECORDS = st.builds(
    Record,
    number=st.just(1),
    ts_ns=st.integers(0, 2**63),
    wirelen=st.integers(0, 200),
    data=st.one_of(st.binary(max_size=64), st.sampled_from(SEEDS).map(lambda s: s[40:120])),
    linktype=st.sampled_from([0, 1, 12, 14, 101, 108, 113, 228, 229, 276, 147]),
    interface=st.integers(0, 3),
    direction=st.integers(0, 2),
)


@settings(max_examples=300)
@given(RECORDS, st.sampled_from(VIEWS))
def test_any_packet_is_received_or_not(record: Record, view: str) -> None:
    if view == "packet_dgram" and not is_receivable(record.linktype):
        return
    skb = receive(record, view=view)
    if skb is None:
        return
    assert skb.data_off >= 0
    assert skb.len >= 0
    assert len(skb.head) - skb.data_off <= skb.len
    assert skb.mac_header == 0
    assert skb.network_header in (0, 4, 14, 16, 20)
    assert 0 <= skb.protocol <= 0xFFFF
