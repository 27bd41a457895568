"""`netbpf.attach` on simulated sockets, and the sk_buff rebuilt from what a socket hands out: needs no kernel."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.packet_grid import MAC, own_frames

import netbpf
from netbpf.errors import ProgramRejected, UsageError
from netbpf.host.lab import drain, open_packet_socket
from netbpf.host.sim.host import SimHost
from netbpf.packet.device import Device
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.socket_skb import (
    Auxdata,
    Endpoints,
    LinkAddress,
    internet_checksum,
    of_packet_socket,
    of_raw_ip_socket,
    of_udp_socket,
)
from netbpf.replay.snapshot import entries

COUNTING = str(Path(__file__).parents[2] / "scenarios" / "counting.s")
FRAMES = [f for f in own_frames().values() if len(f) >= 20]


def test_a_simulated_socket_takes_a_program_as_a_real_one_does() -> None:
    with SimHost().lab(mac=MAC) as lab, netbpf.attach(open_packet_socket(lab), COUNTING) as sock:
        for frame in FRAMES:
            lab.device.deliver(frame)
        assert drain(sock) == []
        stats = sock.filter_stats
        assert stats.packets == stats.dropped == len(FRAMES)
        assert sum(int.from_bytes(v, "little") for _, v in entries(sock.maps["counts"])) > 10
        sock.detach_filter()
        lab.device.deliver(FRAMES[0])
        assert [r.data for r in drain(sock)] == [FRAMES[0]]
        assert sock.filter_stats == stats
        sock.setsockopt(1, 8, 1)
        for _ in range(9):
            lab.device.deliver(FRAMES[0])
        assert sock.filter_stats.kernel_drops == 9 - len(drain(sock)) > 0


def test_trimmed_and_accepted_are_counted() -> None:
    with SimHost().lab(mac=MAC) as lab, netbpf.attach(open_packet_socket(lab), "r0 = 40\nexit\n") as sock:
        for frame in (FRAMES[0][:34], FRAMES[0] + bytes(50)):
            lab.device.deliver(frame)
        assert [len(r.data) for r in drain(sock)] == [34, 40]
        assert (sock.filter_stats.accepted, sock.filter_stats.trimmed) == (2, 1)


def test_what_cannot_be_attached_says_so() -> None:
    with SimHost().lab() as lab:
        sock = open_packet_socket(lab)
        for backend in ("kernel", "both"):
            with pytest.raises(UsageError, match="this one is simulated"):
                netbpf.attach(sock, COUNTING, backend=backend)
        with pytest.raises(UsageError, match="a backend is one of"):
            netbpf.attach(sock, COUNTING, backend="bsd")
        with pytest.raises(UsageError, match="not to int"):
            netbpf.attach(7, COUNTING)
        with pytest.raises(ProgramRejected, match="R4 !read_ok"):
            netbpf.attach(sock, "r0 = r4\nexit\n")


def test_importing_the_package_brings_nothing_along() -> None:
    code = "import sys, netbpf\nprint([m for m in sys.modules if m.startswith('netbpf.')])\nnetbpf.attach"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# --- sk_buffs -------------------------------------------------------------------------------------------------------------


@given(st.sampled_from(FRAMES))
def test_a_packet_is_rebuilt_as_it_was_received(frame: bytes) -> None:
    """receive() of the frame, then what packet_recvmsg tells of it, then back."""
    was = receive(Record(1, 0, len(frame), frame), Device(MAC, 7, 1))
    assert was is not None
    status = 1 | (0x10 | 0x40 if was.vlan_present else 0)
    aux = Auxdata(status, was.len, was.len, 0, was.network_header, was.vlan_tci, was.vlan_proto)
    address = LinkAddress(7, was.protocol, was.pkt_type)
    assert of_packet_socket(was.head, Auxdata.parse(aux.pack()), address, has_link_header=True, queue_mapping=1) == was


def test_without_auxdata_the_bytes_are_believed() -> None:
    skb = of_packet_socket(bytes(60), None, LinkAddress(3, 0x800, 4), has_link_header=True)
    assert (skb.len, skb.network_header, skb.ingress_ifindex, skb.ifindex, skb.vlan_present) == (60, 14, 0, 3, 0)
    old = Auxdata(1 | 0x10, 60, 60, 0, 14, 5, 0)  # a kernel that tells no TPID
    assert of_packet_socket(bytes(60), old, LinkAddress(3, 0x800, 0), has_link_header=True).vlan_proto == 0x8100


@given(st.binary(max_size=99), st.sampled_from([4, 16]))
def test_datagrams_get_headers_that_add_up(payload: bytes, width: int) -> None:
    source, to = bytes(range(width)), bytes(range(1, width + 1))
    skb = of_udp_socket(payload, Endpoints(source, 1000, to, 2000, ttl=9))
    assert skb.len == 8 + len(payload) == len(skb.head) - skb.data_off
    assert skb.head[skb.data_off :][:4] == struct.pack(">HH", 1000, 2000)
    assert skb.head[-len(payload) :] == payload or not payload
    pseudo = source + to + skb.len.to_bytes(4) + (17).to_bytes(4)
    assert internet_checksum(pseudo + skb.head[skb.data_off :]) == 0
    if width == 4:
        assert internet_checksum(skb.head[:20]) == 0
        assert int.from_bytes(skb.head[2:4]) == len(skb.head)


@given(st.binary(max_size=40))
def test_raw_packets_of_any_bytes(data: bytes) -> None:
    assert of_raw_ip_socket(data).len == len(data)


def test_a_filter_loaded_for_capture_files_is_not_attached() -> None:
    with SimHost().lab(mac=MAC) as lab, open_packet_socket(lab) as sock:
        with pytest.raises(UsageError, match="view='socket'"):
            netbpf.attach(sock, netbpf.load("ret #1", view="file"))
        netbpf.attach(sock, netbpf.load("ret #1", view="socket"))
