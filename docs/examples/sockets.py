"""A simulated network in a few lines: two hosts on a wire, sockets with programs, frames from outside. Needs no privilege.

    python docs/examples/sockets.py

Two network namespaces are joined by a veth pair. A UDP server in one keeps only datagrams that begin with "h", a TCP server
drops connections from one port, a packet socket on the wire counts by protocol in a map, three servers share a port and a
program chooses among them, and a hand-made frame comes in by a TAP.
"""

from __future__ import annotations

import socket

import netbpf
from netbpf.env import SteppedEnv
from netbpf.host.sim.host import SimHost
from netbpf.host.sim.network import Network
from netbpf.host.sim.process import SimProcess
from netbpf.packet.inet import build_ipv4, build_udp

SO_ATTACH_REUSEPORT_EBPF = 52

# At a UDP socket skb->data is at the UDP header: the payload begins at byte 8. Link and network headers are below it.
BEGINS_WITH_H = """
    r6 = r1
    r0 = *(u8 *)skb[8]
    if r0 == 104 goto keep
    r0 = 0
    exit
keep:
    r0 = 1500
    exit
"""

# At a TCP socket it is at the TCP header: the first two bytes are the port it came from.
NOT_FROM_PORT_666 = """
    r6 = r1
    r0 = *(u16 *)skb[0]
    if r0 == 666 goto drop
    r0 = -1
    exit
drop:
    r0 = 0
    exit
"""

# At a packet socket it is at the Ethernet header.
COUNT_PROTOCOLS = """
.map counts hash key=4 value=8 entries=2 {
    6: 0
    17: 0
}
    r6 = r1
    r0 = *(u8 *)skb[23]
    *(u32 *)(r10 - 4) = r0
    r2 = r10
    r2 += -4
    r1 = map[counts]
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
out:
    r0 = 0
    exit
"""

# In a group that shares a port, a program sees the payload and returns an index.
BY_FIRST_DIGIT = """
    r6 = r1
    r0 = *(u8 *)skb[0]
    r0 -= 48
    exit
"""


def two_hosts() -> tuple[SimHost, Network, Network]:
    """A machine with two namespaces on a wire. Its clock stands still until it is stepped."""
    host = SimHost(env=SteppedEnv())
    left, right = host.add_network(), host.add_network()
    host.add_pair("eth0", "eth0", network=left, far_network=right)
    left.add_address("10.0.0.1/24", "eth0")
    right.add_address("10.0.0.2/24", "eth0")
    return host, left, right


def udp(client: SimProcess, server: SimProcess) -> None:
    with server.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sock.bind(("10.0.0.2", 5000))
        filtered = netbpf.attach(sock, BEGINS_WITH_H)
        sock.setblocking(False)
        for word in (b"hello", b"goodbye", b"hi"):
            sender.sendto(word, ("10.0.0.2", 5000))
        print("UDP kept", filtered.recv(100), "and", filtered.recv(100), filtered.filter_stats)


def tcp(client: SimProcess, server: SimProcess) -> None:
    with server.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("10.0.0.2", 80))
        listener.listen()
        netbpf.attach(listener, NOT_FROM_PORT_666)
        with client.socket(socket.AF_INET, socket.SOCK_STREAM) as good:
            good.connect(("10.0.0.2", 80))
            child, peer = listener.accept()
            good.sendall(b"GET /")
            print("TCP from", peer[0], "sent", child.recv(100))
            child.close()
        with client.socket(socket.AF_INET, socket.SOCK_STREAM) as bad:
            bad.bind(("10.0.0.1", 666))
            bad.settimeout(0.05)
            try:
                bad.connect(("10.0.0.2", 80))
            except TimeoutError:
                print("TCP from port 666: no answer, the filter drops every SYN")


def packets(client: SimProcess, server: SimProcess) -> None:
    with server.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 3))
        counting = netbpf.attach(sock, COUNT_PROTOCOLS)
        udp(client, server)
        tcp(client, server)
        values = {p: int.from_bytes(counting.maps["counts"].lookup_user(p.to_bytes(4, "little")), "little") for p in (6, 17)}
        print(f"on the wire: TCP {values[6]} UDP {values[17]} packets")


def shared_port(client: SimProcess, server: SimProcess) -> None:
    members = []
    for _ in range(3):
        sock = server.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("10.0.0.2", 53))
        sock.setblocking(False)
        members.append(sock)
    program = server.prog_load(netbpf.load(BY_FIRST_DIGIT).insns)
    members[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, program)
    with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for text in (b"2 for the third", b"0 for the first"):
            sender.sendto(text, ("10.0.0.2", 53))
    print("shared port:", members[0].recv(100), members[2].recv(100))


def from_outside(host: SimHost) -> None:
    """A frame made by hand comes in by a TAP; a scapy packet would do as well."""
    tap = host.add_device("tap0", mac=bytes.fromhex("020000000001"))
    host.machine.network.add_address("192.0.2.1/24", "tap0")
    process = host.process()
    with process.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 7))
        source, target = socket.inet_aton("192.0.2.9"), socket.inet_aton("192.0.2.1")
        packet = build_ipv4(source, target, 17, build_udp(source, target, 4000, 7, b"from far"))
        tap.deliver(tap.mac + bytes.fromhex("020000000009") + b"\x08\x00" + packet)
        data, peer = sock.recvfrom(100)
        sock.sendto(data.upper(), peer)
        print("TAP:", data, "from", peer, "answered by a frame of", len(tap.sent[0]), "bytes")


def main() -> None:
    host, left, right = two_hosts()
    with host.process(network=left) as client, host.process(network=right) as server:
        packets(client, server)
        shared_port(client, server)
    from_outside(host)


if __name__ == "__main__":
    main()
