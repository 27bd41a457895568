"""The two forms of user memory: registered buffers, and this interpreter's own addresses."""

from __future__ import annotations

import ctypes
import errno
import sys

import pytest

from netbpf.errors import BpfError
from netbpf.host.memory import Buffers, read_string

BAD_ADDRESSES = (0, 1, 4095, 1 << 47, 1 << 63, (1 << 64) - 1, (1 << 64) - 4096)


def test_registered_buffers() -> None:
    memory = Buffers()
    shared = bytearray(b"hello")
    first, second = memory.register(shared), memory.put(b"0123456789")
    memory.write(first + 1, b"EL")
    assert shared == b"hELlo"
    assert memory.read(second + 3, 4) == b"3456"
    assert memory.read(12345, 0) == b""
    memory.write(12345, b"")
    for address, size in ((first, 6), (first + 5, 1), (first - 1, 1), (second + 9, 2), *((a, 1) for a in BAD_ADDRESSES)):
        with pytest.raises(BpfError) as caught:
            memory.read(address, size)
        assert caught.value.errno == errno.EFAULT
        with pytest.raises(BpfError):
            memory.write(address, bytes(size))


def test_strings_end_at_a_nul_or_the_limit() -> None:
    memory = Buffers()
    assert read_string(memory, memory.put(b"abc\0def"), 100) == b"abc"
    assert read_string(memory, memory.put(b"abcdef"), 4) == b"abcd"
    assert read_string(memory, memory.put(b"x" * 5000 + b"\0"), 9000) == b"x" * 5000
    with pytest.raises(BpfError):
        read_string(memory, memory.put(b"abc"), 100)


@pytest.mark.skipif(sys.platform != "linux", reason="process_vm_readv is Linux's")
def test_own_addresses_fault_without_a_crash() -> None:
    from netbpf.host.linux.memory import OwnMemory, is_available

    if not is_available():
        pytest.skip("process_vm_readv is not allowed here")
    memory = OwnMemory()
    buffer = ctypes.create_string_buffer(b"0123456789", 10)
    at = ctypes.addressof(buffer)
    assert memory.read(at + 2, 3) == b"234"
    memory.write(at, b"ab")
    assert buffer.raw == b"ab23456789"
    for bad in BAD_ADDRESSES:
        with pytest.raises(BpfError) as caught:
            memory.read(bad, 8)
        assert caught.value.errno == errno.EFAULT
        with pytest.raises(BpfError):
            memory.write(bad, bytes(8))
