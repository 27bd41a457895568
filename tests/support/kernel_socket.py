"""A TAP device in a throw-away network namespace, and a packet socket on it with a program attached by the real kernel.

Everything runs in one thread that has its own namespace; when it ends, sockets and namespace are gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, -1)
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_TAP, IFF_NO_PI = 0x400454CA, 1, 2, 0x1000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFHWADDR, SIOCSIFMTU, SIOCGIFINDEX = 0x8913, 0x8914, 0x8927, 0x8922, 0x8933
SO_ATTACH_BPF = 50
T = TypeVar("T")


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """One instruction, as struct bpf_insn."""
    return struct.pack("<BBhi", code, src << 4 | dst, off, (imm & 0xFFFFFFFF) - ((imm & 0x80000000) << 1))


def _bpf(cmd: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr.ljust(144, b"\0"), 144)
    result = _libc.syscall(_SYS_BPF, cmd, buffer, 144)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


class ArrayMap:
    """A BPF_MAP_TYPE_ARRAY of one value of ``words`` u32 words."""

    def __init__(self, words: int) -> None:
        self.words = words
        self.fd = _bpf(0, struct.pack("<IIII", 2, 4, 4 * words, 1))
        self._key = ctypes.create_string_buffer(4)
        self._value = ctypes.create_string_buffer(4 * words)
        self._attr = struct.pack("<IIQQQ", self.fd, 0, ctypes.addressof(self._key), ctypes.addressof(self._value), 0)

    def write(self, values: Sequence[int]) -> None:
        padded = [v & 0xFFFFFFFF for v in values] + [0] * (self.words - len(values))
        self._value.raw = struct.pack(f"<{self.words}I", *padded)
        _bpf(2, self._attr)

    def read(self) -> tuple[int, ...]:
        _bpf(1, self._attr)
        return struct.unpack(f"<{self.words}I", self._value.raw)

    def close(self) -> None:
        os.close(self.fd)


def map_value(fd: int, dst: int = 0) -> bytes:
    """Instructions: ``r{dst}`` = address of the array's only value (BPF_PSEUDO_MAP_VALUE)."""
    return insn(0x18, dst, 2, 0, fd) + insn(0, 0, 0, 0, 0)


def load_filter(code: bytes) -> int:
    """The descriptor of a socket filter; OSError with the log's end where the kernel refuses it."""
    insns = ctypes.create_string_buffer(code, len(code))
    lic = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(65536)
    head = struct.pack("<IIQQ", 1, len(code) // 8, ctypes.addressof(insns), ctypes.addressof(lic))
    try:
        return _bpf(5, head + struct.pack("<IIQ", 1, len(log), ctypes.addressof(log)))
    except OSError as e:
        raise OSError(e.errno, f"{e.strerror}: {log.value.decode()[-400:]}") from e


class TapDevice:
    """A TAP (or TUN) device, up, with IPv6 silent."""

    def __init__(self, *, tun: bool = False, mtu: int = 9000) -> None:
        self.fd = os.open("/dev/net/tun", os.O_RDWR)
        self.name = "netbpf0"
        name = self.name.encode()
        fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", name, (IFF_TUN if tun else IFF_TAP) | IFF_NO_PI))
        self._quiet()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            fcntl.ioctl(s, SIOCSIFMTU, struct.pack("16si20x", name, mtu))
            flags = struct.unpack("16xH22x", fcntl.ioctl(s, SIOCGIFFLAGS, struct.pack("16sH22x", name, 0)))[0]
            fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | 1))
            self.mac = fcntl.ioctl(s, SIOCGIFHWADDR, struct.pack("16s24x", name))[18:24]
            self.ifindex = struct.unpack("16xi20x", fcntl.ioctl(s, SIOCGIFINDEX, struct.pack("16s24x", name)))[0]

    def _quiet(self) -> None:
        try:
            with open(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6", "w") as f:
                f.write("1")
        except FileNotFoundError:
            pass

    def write(self, frame: bytes) -> bool:
        """Let the device receive ``frame``; False where it refuses it (EINVAL)."""
        try:
            os.write(self.fd, frame)
        except OSError as e:
            if e.errno != 22:
                raise
            return False
        return True

    def close(self) -> None:
        os.close(self.fd)


class PacketSocket:
    """An AF_PACKET socket bound to a device for all protocols; ``attach`` replaces its program."""

    def __init__(self, device: TapDevice, *, dgram: bool = False) -> None:
        kind = socket.SOCK_DGRAM if dgram else socket.SOCK_RAW
        self.sock = socket.socket(socket.AF_PACKET, kind, socket.htons(3))
        self.sock.bind((device.name, 3))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.sock.setblocking(False)

    def attach(self, prog_fd: int) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, struct.pack("i", prog_fd))

    def drain(self) -> list[bytes]:
        frames = []
        try:
            while True:
                frames.append(self.sock.recv(65536))
        except BlockingIOError:
            return frames

    def close(self) -> None:
        self.sock.close()


def in_new_netns(work: Callable[[], T], timeout_s: float = 60) -> T:
    """Run ``work`` in a thread with a network namespace of its own; its result, or its exception."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            if _libc.unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
            results.append(work())
        except BaseException as e:
            errors.append(e)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no result from the namespace within {timeout_s} s")
    return results[0]
