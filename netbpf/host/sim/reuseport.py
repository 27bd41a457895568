"""SO_REUSEPORT groups: sockets that share a port, and the program that says which of them gets a packet."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from netbpf.errors import BpfError
from netbpf.host.sim.filter import SocketFilter
from netbpf.host.sim.machine import Machine
from netbpf.packet.skbuff import SkBuff

if TYPE_CHECKING:
    from netbpf.host.sim.inet_socket import InetSocket


class Group:
    """``members`` in the order they came; one that leaves has its place taken by the last."""

    def __init__(self, machine: Machine) -> None:
        self.members: list[InetSocket] = []
        self.program = SocketFilter(machine, charges=False)

    def add(self, sock: InetSocket) -> None:
        """``sock``, which is in no group, joins."""
        self.members.append(sock)
        sock.group = self

    def leave(self, sock: InetSocket) -> None:
        at = self.members.index(sock)
        last = self.members.pop()
        if last is not sock:
            self.members[at] = last
        sock.group = None
        if not self.members:
            self.program.release()

    def select(self, skb: SkBuff, hlen: int, flow: int) -> InetSocket | None:
        """reuseport_select_sock. The program sees skb->data behind the transport header and returns an index; one that is out
        of range, like no program at all, leaves it to the flow's hash."""
        if self.program.is_attached and hlen <= skb.len:
            inside = replace(skb, data_off=skb.data_off + hlen, len=skb.len - hlen, cb=bytearray(20))
            index = self.program.run(inside)
            if index < len(self.members):
                return self.members[index]
        ready = [m for m in self.members if m.peer is None]
        return ready[flow * len(ready) >> 32] if ready else None


def join_group(sock: InetSocket, others: Iterable[InetSocket]) -> None:
    """On binding (of TCP: on listening): into the group of those that have the very same address, user and device, or into one of
    its own. Raises BpfError(EADDRINUSE) where there is such a group and the socket brings another."""
    if not sock.reuseport:
        return
    for other in others:
        if other.group is not None and _is_same_place(sock, other):
            if sock.group is not None:
                raise BpfError(errno.EADDRINUSE)
            other.group.add(sock)
            return
    own_group(sock)


def own_group(sock: InetSocket) -> Group:
    """The socket's group, made where it has none."""
    if sock.group is None:
        Group(sock.machine).add(sock)
    assert sock.group is not None
    return sock.group


def group_for_program(sock: InetSocket) -> Group:
    """Whose program SO_ATTACH_REUSEPORT_* sets. Raises BpfError(EINVAL) for a socket without SO_REUSEPORT, or one that got it too
    late."""
    if sock.group is None and (sock.is_hashed or not sock.reuseport):
        raise BpfError(errno.EINVAL)
    return own_group(sock)


def _is_same_place(sock: InetSocket, other: InetSocket) -> bool:
    return (
        other.reuseport
        and (sock.family, sock.local, sock.uid, sock.ifindex) == (other.family, other.local, other.uid, other.ifindex)
        and sock.v6only == other.v6only
    )


def hash_of(*parts: bytes | int) -> int:
    """32 bits of a flow. The kernel's take a secret in."""
    return zlib.crc32(b"".join(p if isinstance(p, bytes) else p.to_bytes(2) for p in parts))
