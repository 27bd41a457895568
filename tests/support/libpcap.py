"""libpcap itself over a capture file, through ctypes: what tcpdump -r sees, reads and keeps."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from netbpf.sources import expr

needs_libpcap = pytest.mark.skipif(expr.find_libpcap() is None, reason="libpcap is not installed")
ERRBUF_BYTES = 256


class _Header(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("usec", ctypes.c_long), ("caplen", ctypes.c_uint), ("len", ctypes.c_uint)]


def _library() -> Any:
    library, pointer = expr.find_libpcap(), ctypes.c_void_p
    for name, result, arguments in (
        ("pcap_open_offline", pointer, [ctypes.c_char_p, ctypes.c_char_p]),
        ("pcap_next_ex", ctypes.c_int, [pointer, pointer, pointer]),
        ("pcap_offline_filter", ctypes.c_int, [pointer, pointer, pointer]),
        ("pcap_datalink", ctypes.c_int, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A handle of pcap_open_offline; None where libpcap refuses the file."""
    library = _library()
    handle = library.pcap_open_offline(str(path).encode(), ctypes.create_string_buffer(ERRBUF_BYTES))
    try:
        yield handle
    finally:
        if handle:
            library.pcap_close(handle)


def verdicts(path: Path, texts: list[str], *, optimize: bool = True) -> dict[str, list[int] | str] | None:
    """For each expression its verdict on each packet that libpcap reads, or libpcap's words where it refuses the expression;
    None where it refuses the file."""
    library = _library()
    with opened(path) as handle:
        if not handle:
            return None
        programs: dict[str, Any] = {}
        answers: dict[str, list[int] | str] = {}
        for text in texts:
            program = expr._BpfProgram()
            if library.pcap_compile(handle, ctypes.byref(program), text.encode(), int(optimize), expr.NETMASK_UNKNOWN):
                answers[text] = library.pcap_geterr(handle).decode()
            else:
                programs[text], answers[text] = program, []
        header, data = ctypes.POINTER(_Header)(), ctypes.c_void_p()
        while library.pcap_next_ex(handle, ctypes.byref(header), ctypes.byref(data)) == 1:
            for text, program in programs.items():
                row = answers[text]
                assert isinstance(row, list)
                row.append(library.pcap_offline_filter(ctypes.byref(program), header, data))
        for program in programs.values():
            library.pcap_freecode(ctypes.byref(program))
        return answers
