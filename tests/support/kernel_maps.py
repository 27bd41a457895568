"""Real maps through bpf(2), shaped as netbpf's own, so that a test can drive both with the same calls.

`KernelMap` has the user-space forms; `KernelMap.program(op)` runs a helper on the map from a socket filter, under
BPF_PROG_TEST_RUN on the CPU this thread is pinned to. Errors are BpfError.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from netbpf.abi.maps import BPF_F_MMAPABLE, MAP_KINDS, MapType
from netbpf.errors import BpfError
from netbpf.maps.spec import MapSpec

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, -1)
(CREATE, LOOKUP, UPDATE, DELETE, NEXT_KEY, LOAD, *_) = range(9)
TEST_RUN, GET_INFO, LOOKUP_AND_DELETE, FREEZE = 10, 15, 21, 22
LOOKUP_BATCH, LOOKUP_AND_DELETE_BATCH, UPDATE_BATCH, DELETE_BATCH = 24, 25, 26, 27

HELPERS = {
    "lookup": 1,
    "update": 2,
    "delete": 3,
    "perf_event_output": 25,
    "push": 87,
    "pop": 88,
    "peek": 89,
    "ringbuf_output": 130,
    "ringbuf_submit": 132,
    "ringbuf_discard": 133,
    "ringbuf_query": 134,
}
RINGBUF_RESERVE = 131


def n_cpus() -> int:
    """Possible CPUs of this machine."""
    with open("/sys/devices/system/cpu/possible") as file:
        return int(file.read().split("-")[-1]) + 1


@contextmanager
def pinned(cpu: int = 0) -> Iterator[None]:
    """This thread on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def bpf(cmd: int, attr: bytes) -> tuple[int, bytes]:
    """bpf(2): (result, attr afterwards). Raises BpfError."""
    size = max(len(attr), 4)
    buffer = ctypes.create_string_buffer(attr, size)
    result = _libc.syscall(_SYS_BPF, cmd, buffer, size)
    if result < 0:
        raise BpfErrorWithAttr(ctypes.get_errno(), buffer.raw)
    return result, buffer.raw


class BpfErrorWithAttr(BpfError):
    """A refusal whose attr carries out fields all the same (batch counts)."""

    def __init__(self, errno: int, attr: bytes) -> None:
        super().__init__(errno)
        self.attr = attr


def create_fd(spec: MapSpec, inner_fd: int = 0) -> int:
    """BPF_MAP_CREATE with the spec's fields; the inner template is created for the call when there is one."""
    own = 0
    if spec.inner is not None and not inner_fd:
        inner_fd = own = create_fd(spec.inner)
    attr = struct.pack(
        "<7I16sIIIII Q",
        spec.map_type,
        spec.key_size,
        spec.value_size,
        spec.max_entries,
        spec.map_flags,
        inner_fd or (0xFFFF if spec.map_type in (12, 13) else 0),
        spec.numa_node & 0xFFFFFFFF,
        spec.name.encode(),
        0,
        0,
        spec.btf_key_type_id,
        spec.btf_value_type_id,
        0,
        spec.map_extra,
    )
    try:
        return bpf(CREATE, attr)[0]
    finally:
        if own:
            os.close(own)


def _buffer(data: bytes) -> Any:
    return ctypes.create_string_buffer(data, max(len(data), 1))


class KernelMap:
    """A map of the running kernel."""

    def __init__(self, spec: MapSpec) -> None:
        self.spec = spec
        self.fd = create_fd(spec)
        self._programs: dict[tuple[str, int], HelperProgram] = {}

    def close(self) -> None:
        for program in self._programs.values():
            program.close()
        os.close(self.fd)

    def __enter__(self) -> KernelMap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def user_value_size(self) -> int:
        kind = MAP_KINDS[self.spec.map_type]
        return -(-self.spec.value_size // 8) * 8 * n_cpus() if kind.per_cpu else self.spec.value_size

    def _elem(self, cmd: int, key: bytes | None, value: Any, flags: int) -> None:
        held = _buffer(key) if key else None
        key_at, value_at = (ctypes.addressof(held) if held else 0), (ctypes.addressof(value) if value else 0)
        bpf(cmd, struct.pack("<IIQQQ", self.fd, 0, key_at, value_at, flags))

    def lookup_user(self, key: bytes, flags: int = 0) -> bytes:
        out = _buffer(bytes(self.user_value_size))
        self._elem(LOOKUP, key, out, flags)
        return out.raw[: self.user_value_size]

    def lookup_and_delete_user(self, key: bytes, flags: int = 0) -> bytes:
        out = _buffer(bytes(self.user_value_size))
        self._elem(LOOKUP_AND_DELETE, key, out, flags)
        return out.raw[: self.user_value_size]

    def peek_user(self, value: bytes, flags: int = 0) -> None:
        self._elem(LOOKUP, None, _buffer(value), flags)

    def update_user(self, key: bytes, value: bytes, flags: int = 0) -> None:
        self._elem(UPDATE, key, _buffer(value), flags)

    def delete_user(self, key: bytes) -> None:
        self._elem(DELETE, key, None, 0)

    def next_key(self, key: bytes | None) -> bytes | None:
        out = _buffer(bytes(self.spec.key_size))
        try:
            self._elem(NEXT_KEY, key, out, 0)
        except BpfError as refused:
            if refused.errno == 2:
                return None
            raise
        return out.raw[: self.spec.key_size]

    def freeze(self) -> None:
        bpf(FREEZE, struct.pack("<I", self.fd))

    def batch(
        self,
        cmd: int,
        count: int,
        *,
        in_batch: bytes | None = None,
        keys: bytes = b"",
        values: bytes = b"",
        elem_flags: int = 0,
        flags: int = 0,
    ) -> tuple[int, int, bytes, bytes, bytes]:
        """(errno or 0, count, out_batch, keys, values); keys and values are the arrays as the kernel left them."""
        token = _buffer((in_batch or b"").ljust(64, b"\0"))
        out = _buffer(bytes(64))
        reads = cmd in (LOOKUP_BATCH, LOOKUP_AND_DELETE_BATCH)
        key_array = _buffer(bytes(count * self.spec.key_size) if reads else keys)
        value_array = _buffer(bytes(count * self.user_value_size) if reads else values)
        attr = struct.pack(
            "<QQQQIIQQ",
            ctypes.addressof(token) if in_batch is not None else 0,
            ctypes.addressof(out) if reads else 0,
            ctypes.addressof(key_array),
            ctypes.addressof(value_array) if cmd != DELETE_BATCH else 0,
            count,
            self.fd,
            elem_flags,
            flags,
        )
        error = 0
        try:
            _, after = bpf(cmd, attr)
        except BpfErrorWithAttr as refused:
            error, after = refused.errno, refused.attr
        done = struct.unpack_from("<I", after, 32)[0]
        return error, done, out.raw, key_array.raw, value_array.raw

    def program(self, op: str, key: bytes = b"", value: bytes = b"", flags: int = 0) -> tuple[int, bytes]:
        """Call a helper on this map from a program: (r0 as s64, value buffer afterwards). A lookup gives r0 = 1 and the value's
        bytes, or r0 = 0."""
        size = len(value) if op.startswith(("ringbuf", "perf")) else self.spec.value_size
        program = self._programs.get((op, size))
        if program is None:
            program = self._programs[op, size] = HelperProgram(self.fd, op, size)
        return program.run(key, value, flags)


KEY_AT, VALUE_AT, FLAGS_AT, RESULT_AT, CONTROL_SIZE = 0, 512, 5120, 5128, 5136


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, off, imm)


def ld_map(dst: int, fd: int, pseudo: int = 1) -> bytes:
    return insn(0x18, dst, pseudo, 0, fd) + insn(0)


class HelperProgram:
    """A socket filter that calls one helper on one map, its arguments and results in an array of its own."""

    def __init__(self, map_fd: int, op: str, size: int) -> None:
        self.size = size
        self.control = KernelMap(MapSpec(MapType.ARRAY, 4, CONTROL_SIZE, 1, BPF_F_MMAPABLE))
        text = insn(0xBF, 7, 1) + ld_map(6, self.control.fd, 2) + ld_map(1, map_fd) + self._arguments(op)
        text += insn(0x85, 0, 0, 0, HELPERS[op]) + self._results(op) + insn(0xB7) + insn(0x95)
        self.fd = load(text)

    def _arguments(self, op: str) -> bytes:
        pointer = {"lookup": KEY_AT, "update": KEY_AT, "delete": KEY_AT}.get(op, VALUE_AT)
        second = insn(0xBF, 2, 6) + insn(0x07, 2, 0, 0, pointer)
        flags = insn(0x79, 4 if op in ("update", "ringbuf_output") else 3, 6, FLAGS_AT)
        if op == "update":
            return second + insn(0xBF, 3, 6) + insn(0x07, 3, 0, 0, VALUE_AT) + flags
        if op == "ringbuf_output":
            return second + insn(0xB7, 3, 0, 0, self.size) + flags
        if op == "ringbuf_query":
            return insn(0x79, 2, 6, FLAGS_AT)
        if op == "perf_event_output":
            context_first = insn(0xBF, 2, 1) + insn(0xBF, 1, 7) + insn(0x79, 3, 6, FLAGS_AT)
            return context_first + insn(0xBF, 4, 6) + insn(0x07, 4, 0, 0, VALUE_AT) + insn(0xB7, 5, 0, 0, self.size)
        if op in ("ringbuf_submit", "ringbuf_discard"):
            return self._reserve()
        return second + flags if op == "push" else second

    def _reserve(self) -> bytes:
        """Reserve ``size`` bytes (the program ends with result 1 when there are none) and write the value's first 8."""
        text = insn(0x7A, 6, 0, RESULT_AT, 1) + insn(0xB7, 2, 0, 0, self.size) + insn(0xB7, 3)
        text += insn(0x85, 0, 0, 0, RINGBUF_RESERVE) + insn(0x55, 0, 0, 2, 0) + insn(0xB7) + insn(0x95)
        text += insn(0x79, 1, 6, VALUE_AT) + insn(0x7B, 0, 1, 0)
        return text + insn(0xBF, 1, 0) + insn(0x79, 2, 6, FLAGS_AT)

    def _results(self, op: str) -> bytes:
        if op in ("ringbuf_submit", "ringbuf_discard"):
            return insn(0x7A, 6, 0, RESULT_AT, 0)
        if op != "lookup":
            return insn(0x7B, 6, 0, RESULT_AT)
        copies = b"".join(insn(0x71, 1, 0, i) + insn(0x73, 6, 1, VALUE_AT + i) for i in range(self.size))
        found = insn(0x7A, 6, 0, RESULT_AT, 1) + copies
        return insn(0x7A, 6, 0, RESULT_AT, 0) + insn(0x15, 0, 0, len(found) // 8, 0) + found

    def run(self, key: bytes, value: bytes, flags: int) -> tuple[int, bytes]:
        control = key.ljust(VALUE_AT, b"\0") + value.ljust(FLAGS_AT - VALUE_AT, b"\0") + struct.pack("<QQ", flags, 0)
        self.control.update_user(bytes(4), control)
        run_once(self.fd)
        after = self.control.lookup_user(bytes(4))
        return struct.unpack_from("<q", after, RESULT_AT)[0], after[VALUE_AT : VALUE_AT + self.size]

    def close(self) -> None:
        os.close(self.fd)
        self.control.close()


def load(text: bytes, prog_type: int = 1) -> int:
    """BPF_PROG_LOAD, as a socket filter unless told."""
    insns, license_text, log = _buffer(text), _buffer(b"GPL\0"), _buffer(bytes(1 << 16))
    log_attr = struct.pack("<IIQ", 1, len(log), ctypes.addressof(log))
    attr = struct.pack("<IIQQ", prog_type, len(text) // 8, ctypes.addressof(insns), ctypes.addressof(license_text)) + log_attr
    try:
        return bpf(LOAD, attr.ljust(128, b"\0"))[0]
    except BpfError as refused:
        raise AssertionError(log.value.decode()) from refused


def run_once(fd: int) -> int:
    """BPF_PROG_TEST_RUN once, on 64 bytes of zeroes: the program's return value."""
    packet = bytes(64)
    data = _buffer(packet)
    _, after = bpf(TEST_RUN, struct.pack("<IIIIQQII", fd, 0, len(packet), 0, ctypes.addressof(data), 0, 1, 0).ljust(80, b"\0"))
    return int(struct.unpack_from("<I", after, 4)[0])

def info_id(fd: int) -> int:
    """The id of a map (or program) by its descriptor."""
    info = _buffer(bytes(256))
    bpf(GET_INFO, struct.pack("<IIQ", fd, 256, ctypes.addressof(info)))
    return int(struct.unpack_from("<I", info.raw, 4)[0])
