"""tcpdump expressions -> classic BPF, by libpcap's own compiler (through ctypes: no root, no interface).

The only place that knows libpcap. What libpcap says of a bad expression is what the user reads.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from netbpf.errors import CaptureError, SourceError, UsageError
from netbpf.isa.classic import ClassicProgram, SockFilter
from netbpf.sources.cbpf_check import ancillary

NETMASK_UNKNOWN: Final = 0xFFFF_FFFF
MAXIMUM_SNAPLEN: Final = 262144  # what tcpdump keeps of a packet; an accepting filter returns it
MAX_EXPRESSION_BYTES: Final = 1 << 16  # libpcap takes minutes over longer ones, whose filters are too long for the kernel
_NAMES: Final = ("libpcap.so.1", "libpcap.so.0.8", "libpcap.so", "libpcap.dylib")
MISSING: Final = (
    "tcpdump expressions are compiled by libpcap, which is not installed here: apt install libpcap0.8 (Debian, Ubuntu), "
    "dnf install libpcap (Fedora), apk add libpcap (Alpine)"
)
# a capture file's link types whose DLT_ number, which the compiler takes, is another one (Linux numbers)
DLT_OF_LINKTYPE: Final = {100: 11, 101: 12, 102: 15, 103: 16, 106: 19}


DLT_EN10MB: Final = 1
DLT_RAW: Final = 12
# captures whose packets have an Ethernet header at a packet socket: loopback's and cooked ones (NULL, LOOP, LINUX_SLL, SLL2)
_ETHERNET_AT_A_SOCKET: Final = frozenset({0, 108, 113, 276})
_BARE_IP: Final = frozenset({DLT_RAW, 14, 101, 228, 229})


def socket_linktype(linktype: int) -> int:
    """The link type that a packet socket sees where a capture was taken, which the capture file may have written as another
    (``packet.receive`` makes such packets)."""
    if linktype in _ETHERNET_AT_A_SOCKET:
        return DLT_EN10MB
    return DLT_RAW if linktype in _BARE_IP else linktype


_MAGIC: Final = 0xA1B2C3D4
_ERRBUF_BYTES: Final = 256
_PCAP_ERROR: Final = -1
_SPECIAL_VLAN_HANDLING, _SPECIAL_BASIC_HANDLING, _OFFLINE_AF = 1, 2, 4  # BPF_* flags of struct pcap


class _BpfInsn(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]


class _BpfProgram(ctypes.Structure):
    _fields_ = [("bf_len", ctypes.c_uint), ("bf_insns", ctypes.POINTER(_BpfInsn))]


@cache
def find_libpcap() -> Any:
    """libpcap as ctypes has it, with the prototypes set; None where it is not installed."""
    for name in _names():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return _with_prototypes(library)
    return None


def _names() -> Iterator[str]:
    yield from _NAMES
    import ctypes.util  # slow to import, and its search runs a compiler: last

    found = ctypes.util.find_library("pcap")
    if found:
        yield found


def _libpcap() -> Any:
    library = find_libpcap()
    if library is None:
        raise UsageError(MISSING)
    return library


def _with_prototypes(library: Any) -> Any:
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("pcap_fopen_offline", pointer, [pointer, text]),
        ("pcap_open_offline", pointer, [text, text]),
        ("pcap_next_ex", ctypes.c_int, [pointer, pointer, pointer]),
        ("pcap_open_dead", pointer, [ctypes.c_int, ctypes.c_int]),
        ("pcap_compile", ctypes.c_int, [pointer, ctypes.POINTER(_BpfProgram), text, ctypes.c_int, ctypes.c_uint]),
        ("pcap_geterr", text, [pointer]),
        ("pcap_freecode", None, [ctypes.POINTER(_BpfProgram)]),
        ("pcap_close", None, [pointer]),
        ("pcap_lib_version", text, []),
        ("pcap_datalink_name_to_val", ctypes.c_int, [text]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def libpcap_version() -> str:
    """What libpcap calls itself: ``libpcap version 1.10.3 (with TPACKET_V3)``. Raises UsageError where there is none."""
    return str(_libpcap().pcap_lib_version().decode())


def linktype_of_name(name: str) -> int:
    """The DLT_ number of a name such as EN10MB (as ``tcpdump -y`` takes it). Raises UsageError."""
    value = int(_libpcap().pcap_datalink_name_to_val(name.encode()))
    if value < 0:
        raise UsageError(f"libpcap knows no data link type {name!r}")
    return value


def compile_expression(
    text: str,
    linktype: int = 1,
    *,
    savefile: bool = False,
    snaplen: int = MAXIMUM_SNAPLEN,
    optimize: bool = True,
    netmask: int = NETMASK_UNKNOWN,
) -> ClassicProgram:
    """The filter that libpcap makes of ``text`` for packets of a capture's link type; an empty text accepts everything.

    ``savefile``: as for a capture file that it reads, where some words are refused (``inbound`` of most link types).
    ``netmask`` is what ``ip broadcast`` needs. Raises SourceError with libpcap's words, UsageError for what is
    no link type and without libpcap.
    """
    if not isinstance(linktype, int) or not 0 <= linktype <= 0xFFFF:
        raise UsageError(f"a link type is a number from 0 to 65535, not {linktype!r}")
    opened = savefile_handle(linktype, snaplen) if savefile else dead_handle(DLT_OF_LINKTYPE.get(linktype, linktype), snaplen)
    with opened as handle:
        if not savefile:  # libpcap from 1.11 on takes `inbound` and `ifindex` for sockets only
            allow_linux_extensions(handle, _SPECIAL_BASIC_HANDLING)
        return compile_on(handle, text, optimize=optimize, netmask=netmask)


@contextmanager
def dead_handle(dlt: int, snaplen: int = MAXIMUM_SNAPLEN) -> Iterator[Any]:
    """A handle of libpcap for nothing but compiling. Raises UsageError without libpcap."""
    library = _libpcap()
    yield from _closing(library, library.pcap_open_dead(dlt, snaplen), "pcap_open_dead")


@contextmanager
def savefile_handle(linktype: int, snaplen: int = MAXIMUM_SNAPLEN, *, swapped: bool = False) -> Iterator[Any]:
    """A handle as of a capture file with nothing but its header; ``swapped``: of a machine of the other byte order.

    Raises SourceError with libpcap's words for a header that it refuses, UsageError without libpcap.
    """
    library = _libpcap()
    order = "<>"[(sys.byteorder == "big") ^ swapped]
    header = struct.pack(f"{order}IHHiIII", _MAGIC, 2, 4, 0, 0, snaplen, linktype)
    yield from _closing(library, _open_in_memory(library, header), "pcap_fopen_offline")


@contextmanager
def file_handle(path: str) -> Iterator[Any]:
    """A handle of a capture file, as ``tcpdump -r`` opens it. Raises CaptureError with libpcap's words, UsageError without it."""
    library, words = _libpcap(), ctypes.create_string_buffer(_ERRBUF_BYTES)
    handle = library.pcap_open_offline(os.fsencode(path), words)
    if not handle:
        raise CaptureError(words.value.decode("utf-8", "replace"))
    yield from _closing(library, handle, "")


class _PcapTail(ctypes.Structure):
    """The end of libpcap's ``struct pcap`` up to ``errbuf``, the same from 1.9 to 1.11."""

    _fields_ = [
        ("direction", ctypes.c_int),
        ("bpf_codegen_flags", ctypes.c_int),
        ("selectable_fd", ctypes.c_int),
        ("required_select_timeout", ctypes.c_void_p),
        ("fcode", _BpfProgram),
    ]


def allow_linux_extensions(handle: Any, which: int = _SPECIAL_VLAN_HANDLING | _SPECIAL_BASIC_HANDLING) -> bool:
    """Let libpcap compile for a handle as for a live packet socket, whose ancillary data tells of VLAN tags and devices.

    libpcap does so for handles of devices only, which need privileges; its own filtertest sets the flags behind its back, as is
    done here. False where a trial does not show the flags where they are looked for.
    """
    return _knows_codegen_flags() and _set_codegen_flags(handle, which)


@cache
def _knows_codegen_flags() -> bool:
    with dead_handle(DLT_EN10MB) as trial:
        is_set = _set_codegen_flags(trial, _SPECIAL_VLAN_HANDLING)
        return is_set and any(ancillary(i) is not None for i in compile_on(trial, "vlan"))


def _set_codegen_flags(handle: int, which: int) -> bool:
    """Whether the place looked as it should in a handle that waits for nothing."""
    errbuf = ctypes.cast(_libpcap().pcap_geterr, ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p))(handle)
    tail = _PcapTail.from_address(errbuf - ctypes.sizeof(_PcapTail))
    if tail.bpf_codegen_flags & ~_OFFLINE_AF or tail.required_select_timeout or tail.fcode.bf_len:
        return False
    tail.bpf_codegen_flags |= which
    return True


def damage_of(path: str) -> str:
    """libpcap's words where it stops in a capture file before its end; "" where it reads it all."""
    library, header, data = _libpcap(), ctypes.c_void_p(), ctypes.c_void_p()
    with file_handle(path) as handle:
        while (status := library.pcap_next_ex(handle, ctypes.byref(header), ctypes.byref(data))) == 1:
            pass
        return library.pcap_geterr(handle).decode("utf-8", "replace") if status == _PCAP_ERROR else ""


def _closing(library: Any, handle: Any, what: str) -> Iterator[Any]:
    if not handle:
        raise MemoryError(what)
    try:
        yield handle
    finally:
        library.pcap_close(handle)


def _open_in_memory(library: Any, header: bytes) -> Any:
    fmemopen = ctypes.CDLL(None).fmemopen
    fmemopen.restype, fmemopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    stream = fmemopen(header, len(header), b"r")
    if not stream:
        raise MemoryError("fmemopen")
    words = ctypes.create_string_buffer(_ERRBUF_BYTES)
    handle = library.pcap_fopen_offline(stream, words)
    if not handle:
        raise SourceError(words.value.decode("utf-8", "replace"), path="<expression>")
    return handle


def compile_on(handle: Any, text: str, *, optimize: bool = True, netmask: int = NETMASK_UNKNOWN) -> ClassicProgram:
    """The filter that libpcap makes of ``text`` for an open handle, whose link type and snapshot length it has.

    Raises SourceError with libpcap's words.
    """
    library, program = _libpcap(), _BpfProgram()
    encoded = text.encode("utf-8", "surrogateescape")
    if b"\0" in encoded or len(encoded) > MAX_EXPRESSION_BYTES:
        raise SourceError("no expression is so long or has a NUL in it", path="<expression>")
    if library.pcap_compile(handle, ctypes.byref(program), encoded, int(optimize), netmask):
        raise SourceError(library.pcap_geterr(handle).decode("utf-8", "replace"), path="<expression>")
    try:
        return tuple(SockFilter(i.code, i.jt, i.jf, i.k) for i in program.bf_insns[: program.bf_len])
    finally:
        library.pcap_freecode(ctypes.byref(program))
