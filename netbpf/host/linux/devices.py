"""Real devices to push frames through: a TAP (python-pytun), a veth pair (pyroute2), lo. Each is made and used in the thread
whose network namespace it belongs to, and gone when closed."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any, Final, Protocol

from netbpf.errors import BpfError

SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFHWADDR, SIOCSIFHWADDR = 0x8913, 0x8914, 0x8927, 0x8924
IFF_UP, IFF_NOARP = 1, 0x80
ARPHRD_ETHER: Final = 1
_IFREQ: Final = 40


class Wire(Protocol):
    """A device with its far end in our hands."""

    name: str

    def deliver(self, frame: bytes) -> bool:
        """Let the device receive a frame; False where it refuses it."""

    def close(self) -> None: ...


class Tap:
    """A TAP device: what is written to its descriptor comes in, what goes out is read from it. It is up, without ARP; with
    ``by_netlink`` it is brought up as any device is, and answers ARP."""

    def __init__(self, name: str = "tap0", *, mac: bytes | None = None, mtu: int = 9000, by_netlink: bool = False) -> None:
        pytun = import_live("pytun")
        try:
            self._tap: Any = pytun.TunTapDevice(name=name, flags=pytun.IFF_TAP | pytun.IFF_NO_PI)
        except pytun.Error as e:
            raise BpfError(e.args[0] if e.args and isinstance(e.args[0], int) else errno.EPERM, f"TAP {name}: {e}") from None
        self.name: str = self._tap.name
        self._tap.mtu = mtu
        if mac is not None:
            set_mac(self.name, mac)
        (bring_up_by_netlink if by_netlink else bring_up)(self.name)
        self.mac = get_mac(self.name)
        self.ifindex = socket.if_nametoindex(self.name)

    def deliver(self, frame: bytes) -> bool:
        return _written(self._tap.fileno(), frame)

    def read(self, size: int = 65536) -> bytes:
        """The next frame that goes out."""
        return os.read(self._tap.fileno(), size)

    def fileno(self) -> int:
        return int(self._tap.fileno())

    def close(self) -> None:
        self._tap.close()


class Veth:
    """A veth pair: a frame sent out of the far end comes in at ``name``."""

    def __init__(self, name: str = "veth0", *, mac: bytes | None = None, mtu: int = 9000) -> None:
        pyroute2 = import_live("pyroute2")
        self.name, self.far = name, f"{name}p"
        with pyroute2.IPRoute() as ip:
            ip.link("add", ifname=name, kind="veth", peer={"ifname": self.far})
            for end in (name, self.far):
                ip.link("set", index=socket.if_nametoindex(end), mtu=mtu)
        if mac is not None:
            set_mac(name, mac)
        for end in (name, self.far):
            bring_up(end)
        self.mac = get_mac(name)
        self.ifindex = socket.if_nametoindex(name)
        self._out = _sender(self.far)

    def deliver(self, frame: bytes) -> bool:
        return _sent(self._out, frame)

    def close(self) -> None:
        self._out.close()
        with import_live("pyroute2").IPRoute() as ip:
            ip.link("del", index=self.ifindex)


class Loopback:
    """lo, brought up. A frame sent out of it is seen twice: outgoing, then coming in."""

    name = "lo"
    mac = bytes(6)

    def __init__(self) -> None:
        bring_up(self.name)
        self.ifindex = socket.if_nametoindex(self.name)
        self._out = _sender(self.name)

    def deliver(self, frame: bytes) -> bool:
        return _sent(self._out, frame)

    def close(self) -> None:
        self._out.close()


def bring_up(name: str) -> None:
    """IFF_UP, and no ARP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        asked = struct.pack("16sH22x", name.encode(), 0)
        flags = struct.unpack_from("H", fcntl.ioctl(s, SIOCGIFFLAGS, asked), 16)[0]
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | IFF_UP | IFF_NOARP))


ADDRESS_S: Final = 2.0
_QUIET_IPV6: Final = (("addr_gen_mode", "1"), ("router_solicitations", "0"), ("accept_dad", "0"), ("disable_ipv6", "0"))


def add_address(name: str, address: str) -> None:
    """An address with its prefix; lo comes up too. IPv6 is let in on the device, with nothing said by it unasked and no wait for
    others who might have the address. Raises BpfError(EINVAL, EEXIST)."""
    pyroute2 = import_live("pyroute2")
    host, _, prefix = address.partition("/")
    bring_up("lo")
    if ":" in host:
        for device in ("lo", name):
            for knob, value in _QUIET_IPV6:
                Path(f"/proc/sys/net/ipv6/conf/{device}/{knob}").write_text(value)
    with pyroute2.IPRoute() as ip:
        try:
            ip.addr("add", index=socket.if_nametoindex(name), address=host, prefixlen=int(prefix or (128 if ":" in host else 32)))
        except pyroute2.NetlinkError as e:
            raise BpfError(e.code, f"{address} on {name}: {e}") from None
    deadline = time.monotonic() + ADDRESS_S
    while ":" in host and not _is_own(host) and time.monotonic() < deadline:
        time.sleep(0.001)  # the kernel makes an IPv6 address usable a little later


def _is_own(host: str) -> bool:
    """Whether a socket can be bound to an IPv6 address and reach it."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
            probe.connect((host, 9))
        except OSError:
            return False
        return True


def bring_up_by_netlink(name: str) -> None:
    """The device goes up, as ``ip link set NAME up`` does it. Raises BpfError."""
    pyroute2 = import_live("pyroute2")
    with pyroute2.IPRoute() as ip:
        ip.link("set", index=socket.if_nametoindex(name), state="up")


def hardware_type(name: str) -> int:
    """ARPHRD_* of a device of this thread's namespace. Raises OSError(ENODEV)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        asked = struct.pack("16s24x", name.encode())
        return int(struct.unpack_from("H", fcntl.ioctl(s, SIOCGIFHWADDR, asked), 16)[0])


def get_mac(name: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        return fcntl.ioctl(s, SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))[18:24]


def set_mac(name: str, mac: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFHWADDR, struct.pack("16sH6s16x", name.encode(), ARPHRD_ETHER, mac))


def _sender(name: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.bind((name, 0))
    return made


def _sent(out: socket.socket, frame: bytes) -> bool:
    try:
        out.send(frame)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.EMSGSIZE):
            raise
        return False
    return True


def _written(fd: int, frame: bytes) -> bool:
    try:
        os.write(fd, frame)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        return False
    return True


def import_live(name: str) -> Any:
    """pytun or pyroute2. BpfError(ENOSYS) that says how to get it where it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise BpfError(errno.ENOSYS, f"ENOSYS: this needs the {name} package: pip install 'netbpf[live]'") from None
