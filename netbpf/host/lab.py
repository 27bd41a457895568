"""A packet laboratory, the same on both hosts: a process and a device, frames in one by one, and what a socket got of each.

``Lab`` is what ``SimHost.lab`` and ``LinuxHost.lab`` give. ``send_and_gather`` knows only sockets as Python has them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from netbpf.abi import sockopt as so
from netbpf.abi.net import ETH_P_ALL

if TYPE_CHECKING:
    from netbpf.host.base import Process

ANCILLARY_BYTES = 64
FRAME_BYTES = 1 << 17


class LabDevice(Protocol):
    """A device that frames come in on. ``mac`` is its address."""

    @property
    def name(self) -> str: ...

    @property
    def mac(self) -> bytes: ...

    @property
    def ifindex(self) -> int: ...

    def deliver(self, frame: bytes) -> bool:
        """False where the device or the kernel refuses the frame at once."""


class Lab(Protocol):
    """A network namespace with one device beside lo, and a process in it. A context manager."""

    @property
    def process(self) -> Process: ...

    @property
    def device(self) -> LabDevice: ...

    def add_address(self, address: str) -> None:
        """An IP address with its prefix ("10.0.0.1/24", "fd00::1/64") on the device, so that packets to it reach UDP, TCP and
        raw sockets of the process; lo is up from then on. Raises BpfError."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Received(NamedTuple):
    """One packet out of a socket: its bytes, its length by MSG_TRUNC, PACKET_AUXDATA, and where it came from
    (device name, protocol, pkt_type, hardware type, source address)."""

    data: bytes
    length: int
    auxdata: bytes
    address: tuple[Any, ...]


class Outcome(NamedTuple):
    """What became of one frame: what the socket under test got of it; ``seen`` whether an unfiltered socket beside it saw it."""

    received: tuple[Received, ...]
    seen: int


def open_packet_socket(lab: Lab, *, sock_type: int = so.SOCK_RAW, protocol: int = ETH_P_ALL, device: str | None = None) -> Any:
    """A packet socket on the lab's device that never blocks and wants auxdata."""
    made = lab.process.socket(so.AF_PACKET, sock_type, 0)
    made.setsockopt(so.SOL_SOCKET, so.SO_RCVBUFFORCE, 1 << 22)
    made.setsockopt(so.SOL_PACKET, so.PACKET_AUXDATA, 1)
    made.setblocking(False)
    made.bind((lab.device.name if device is None else device, protocol))
    return made


def drain(sock: Any) -> list[Received]:
    """Every packet that waits in a non-blocking socket."""
    out: list[Received] = []
    room = bytearray(FRAME_BYTES)
    while True:
        try:  # one call: a MSG_PEEK before it would spoil tp_len, which the kernel keeps where it writes the address
            length, control, _, address = sock.recvmsg_into([room], ANCILLARY_BYTES, so.MSG_TRUNC)
        except BlockingIOError:
            return out
        aux = next((d for level, kind, d in control if (level, kind) == (so.SOL_PACKET, so.PACKET_AUXDATA)), b"")
        out.append(Received(bytes(room[:length]), length, aux, address))


def send_and_gather(lab: Lab, sock: Any, frames: Iterable[bytes], *, witness: Any, wait_s: float = 0.02) -> list[Outcome]:
    """Deliver frames one by one and tell what ``sock`` got of each. ``witness`` is an unfiltered socket opened before ``sock``
    (so it is served after it): once it has the frame, ``sock``'s verdict is known. Frames nobody saw cost ``wait_s`` each."""
    outcomes = []
    for frame in frames:
        accepted = lab.device.deliver(frame)
        seen = len(drain(witness))
        deadline = time.monotonic() + wait_s
        while accepted and not seen and time.monotonic() < deadline:
            seen = len(drain(witness))
        outcomes.append(Outcome(tuple(drain(sock)), seen))
    return outcomes
