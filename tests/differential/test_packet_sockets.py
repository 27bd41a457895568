"""A packet socket with a program attached, on the simulator and in the running kernel: the same frames come in by a TAP, a veth
or lo, and each socket gets the same of each: verdict, captured length, bytes, VLAN tag, address, and the same counts in maps."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from support.kernel import needs_kernel
from support.packet_grid import FILTERS, MAC, capture_frames, counting, own_frames

from netbpf.abi import sockopt as so
from netbpf.host.choose import get_host
from netbpf.host.lab import Lab, Outcome, open_packet_socket, send_and_gather
from netbpf.isa.instruction import Program
from netbpf.maps.spec import MapSpec

pytestmark = needs_kernel
FRAMES = own_frames()


def attach(lab: Lab, sock: Any, prog: Program) -> None:
    fd = lab.process.prog_load(prog)
    sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, fd)
    lab.process.close(fd)  # the socket holds it


def outcomes(backend: str, kind: str, filters: dict[str, Program | None], frames: dict[str, bytes], **options: int) -> list[str]:
    lines = []
    with get_host(backend).lab(kind=kind, mac=MAC) as lab:
        witness = open_packet_socket(lab)
        for name, prog in filters.items():
            with open_packet_socket(lab, **options) as sock:
                if prog is not None:
                    attach(lab, sock, prog)
                got = send_and_gather(lab, sock, frames.values(), witness=witness, wait_s=0.002)
                lines += [f"{name}: {frame}: {_tell(outcome)}" for frame, outcome in zip(frames, got, strict=True)]
    return lines


def _tell(outcome: Outcome) -> str:
    parts = [f"seen {outcome.seen}"]
    for got in outcome.received:
        data = got.data if len(got.data) < 80 else f"{got.data[:64].hex()}... of {len(got.data)}"
        parts.append(f"{got.length} bytes aux {got.auxdata.hex()} from {got.address[1:]}: {data!r}")
    return "; ".join(parts)


def compare(*args: Any, **options: int) -> None:
    sim, kernel = outcomes("sim", *args, **options), outcomes("kernel", *args, **options)
    wrong = [f"sim    {a}\nkernel {b}" for a, b in zip(sim, kernel, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {len(sim)} differ:\n" + "\n".join(wrong[:20])


@pytest.mark.parametrize("sock_type", [so.SOCK_RAW, so.SOCK_DGRAM], ids=["raw", "dgram"])
@pytest.mark.parametrize("kind", ["tap", "veth", "lo"])
def test_every_filter_on_every_frame(kind: str, sock_type: int) -> None:
    compare(kind, {"none": None, **FILTERS}, FRAMES, sock_type=sock_type)


@pytest.mark.parametrize("sock_type", [so.SOCK_RAW, so.SOCK_DGRAM], ids=["raw", "dgram"])
@pytest.mark.parametrize("protocol", [0x0800, 0x86DD, 0x8100, 0x88A8, 1, 4])
def test_sockets_of_one_protocol(protocol: int, sock_type: int) -> None:
    """They see a tagged frame as somebody else's, the tag gone; nothing that goes out."""
    filters = {"none": None, **{name: FILTERS[name] for name in ("skb->len", "pkt_type", "vlan_present", "byte 14")}}
    for kind in ("tap", "lo"):
        compare(kind, filters, FRAMES, sock_type=sock_type, protocol=protocol)


def test_captures() -> None:
    """The shipped captures, frame by frame."""
    filters = {name: FILTERS[name] for name in ("keep", "byte 23", "40 bytes")}
    compare("tap", filters, capture_frames())


@pytest.mark.parametrize("kind", ["tap", "veth", "lo"])
def test_the_counting_example(kind: str) -> None:
    """map[skb->ip->proto]++ over all of it: kernel counts == simulator counts."""
    frames = [*FRAMES.values(), *capture_frames(10_000).values()]
    counts = {}
    for backend in ("sim", "kernel"):
        with get_host(backend).lab(kind=kind, mac=MAC) as lab:
            p = lab.process
            fd = p.map_create(MapSpec(1, 4, 8, 256))
            for proto in (1, 2, 6, 17, 44, 58):
                p.map_update_elem(fd, struct.pack("<I", proto), bytes(8))
            witness = open_packet_socket(lab)
            with open_packet_socket(lab) as sock:
                attach(lab, sock, counting(fd))
                got = send_and_gather(lab, sock, frames, witness=witness, wait_s=0.002)
            assert not any(outcome.received for outcome in got)
            counts[backend] = {k: int.from_bytes(v, "little") for k, v in sorted(p.map_items(fd))}
    assert counts["sim"] == counts["kernel"]
    assert sum(counts["sim"].values()) > 1000
