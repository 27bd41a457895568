"""A tcpdump expression compiled by libpcap for a device that is there, as ``tcpdump -i`` has it: `vlan` asks for the tag that the
kernel keeps beside the packet, `inbound` and `outbound` are known."""

from __future__ import annotations

import ctypes
from typing import Any

from netbpf.errors import SourceError, UsageError
from netbpf.isa.classic import ClassicProgram
from netbpf.sources.expr import MISSING, compile_on, find_libpcap

ERRBUF_BYTES = 256


def compile_for_device(text: str, device: str, *, optimize: bool = True) -> ClassicProgram:
    """Needs what opening a packet socket needs. Raises SourceError with libpcap's words, UsageError without libpcap."""
    library = find_libpcap()
    if library is None:
        raise UsageError(MISSING)
    handle = _activated(library, device)
    try:
        return compile_on(handle, text, optimize=optimize)
    finally:
        library.pcap_close(handle)


def _activated(library: Any, device: str) -> Any:
    """A live handle on a device of this thread's namespace."""
    library.pcap_create.restype, library.pcap_create.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
    library.pcap_activate.restype, library.pcap_activate.argtypes = ctypes.c_int, [ctypes.c_void_p]
    words = ctypes.create_string_buffer(ERRBUF_BYTES)
    handle = library.pcap_create(device.encode(), words)
    if not handle:
        raise SourceError(words.value.decode("utf-8", "replace"), path="<expression>")
    if library.pcap_activate(handle) < 0:
        told = library.pcap_geterr(handle).decode("utf-8", "replace")
        library.pcap_close(handle)
        raise SourceError(f"libpcap does not open {device}: {told}", path="<expression>")
    return handle
