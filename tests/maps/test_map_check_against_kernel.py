"""A grid of map_create arguments through bpf(2), with every capability and with few: the same errno for each."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import warnings
from collections.abc import Iterator

import pytest
from support.kernel import needs_kernel
from support.kernel_maps import _libc, create_fd
from support.sysctl import unprivileged_bpf

from netbpf.abi.maps import MAP_KINDS, MapType
from netbpf.errors import BpfError
from netbpf.maps.check import check_spec
from netbpf.maps.spec import MapSpec

pytestmark = needs_kernel
T = MapType
INNER = MapSpec(T.ARRAY, 4, 4, 4)
HERE = [kind.type for kind in MAP_KINDS.values() if kind.family]
CAPS = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}


def asked(spec: MapSpec, inner_fd: int = 0) -> int:
    try:
        os.close(create_fd(spec, inner_fd))
    except BpfError as refused:
        return -int(refused.args[0])
    return 0


def inner_of(kind: int) -> MapSpec | None:
    return INNER if kind in (T.ARRAY_OF_MAPS, T.HASH_OF_MAPS) else None


def sizes(kind: int) -> Iterator[MapSpec]:
    for key_size in (0, 1, 4, 5, 8, 260, 261, 4096):
        for value_size in (0, 1, 4, 9, 32768, 32769, 1 << 22, 1 << 31):
            for max_entries in (0, 1, 3, 4096):
                if value_size < 1 << 15 or max_entries < 3:
                    yield MapSpec(kind, key_size, value_size, max_entries, inner=inner_of(kind))
                    yield MapSpec(kind, key_size, value_size, max_entries, 1, inner=inner_of(kind))


def flags(kind: int) -> Iterator[MapSpec]:
    chosen = [1 << n for n in range(19) if n != 16] + [0x180, 0x18, 3, 5, 0x41, 0x42, 1 << 31]
    for map_flags in chosen:
        for key_size in (0, 4, 8):
            for value_size in (0, 4, 8):
                yield MapSpec(kind, key_size, value_size, 4096, map_flags, inner=inner_of(kind))
    for extra in (1, 15, 16, 1 << 32):
        yield MapSpec(kind, 0, 8, 4096, map_extra=extra)
    for node in (0, 1, 0xFFFF_FFFF):
        yield MapSpec(kind, 4, 4, 4096, 4, numa_node=node, inner=inner_of(kind))
    yield MapSpec(kind, 4, 4, 4096, btf_key_type_id=1, inner=inner_of(kind))


@pytest.mark.parametrize("kind", [*HERE, T.UNSPEC, 34, 1000])
def test_grid(kind: int) -> None:
    for spec in (*sizes(kind), *flags(kind)):
        assert check_spec(spec) == asked(spec), spec


def test_boundaries() -> None:
    largest_pair = (1 << 22) - 48
    for spec in (
        *(MapSpec(kind, 4, largest_pair - 4 - less, 1) for kind in (T.HASH, T.LRU_HASH) for less in (0, 1)),
        *(MapSpec(T.LPM_TRIE, 8, (1 << 22) - 280 + more, 1, 1) for more in (0, 1)),
        *(MapSpec(T.QUEUE, 0, (1 << 22) + more, 1) for more in (0, 1)),
        *(MapSpec(T.BLOOM_FILTER, 0, (1 << 22) + more, 1) for more in (0, 1)),
        MapSpec(T.HASH, 4, 4, (1 << 27) + 1, 1),
        MapSpec(T.LRU_HASH, 4, 4, (1 << 31) + 1),
        MapSpec(T.LRU_HASH, 4, 4, (1 << 32) - 1, 2),
    ):
        assert check_spec(spec) == asked(spec), spec


def drop_to(caps: frozenset[str]) -> None:
    """Leave this process these capabilities alone."""
    bits = sum(1 << CAPS[cap] for cap in caps)
    low, high = bits & 0xFFFF_FFFF, bits >> 32
    header = struct.pack("<II", 0x20080522, 0)
    number = {"x86_64": 126, "aarch64": 91}[os.uname().machine]
    data = ctypes.create_string_buffer(struct.pack("<6I", low, low, 0, high, high, 0))
    if _libc.syscall(number, ctypes.create_string_buffer(header), data):
        os._exit(1)


def asked_without_caps(specs: list[MapSpec], caps: frozenset[str]) -> list[int]:
    """The kernel's answers to a child that has only ``caps``."""
    inner_fd = create_fd(INNER)
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads about: the child runs nothing of theirs
        child = os.fork()
    if not child:
        drop_to(caps)
        answers = json.dumps([asked(spec, inner_fd if spec.inner else 0) for spec in specs]).encode()
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answers)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answers = json.loads(pipe.read() or b"[]")
    os.waitpid(child, 0)
    os.close(inner_fd)
    return list(answers)


@pytest.mark.parametrize("caps", [(), ("CAP_BPF",), ("CAP_NET_ADMIN",), ("CAP_SYS_ADMIN",), ("CAP_BPF", "CAP_PERFMON")])
@pytest.mark.parametrize("disabled", [0, 2])
def test_grid_with_few_capabilities(caps: tuple[str, ...], disabled: int) -> None:
    specs = [
        MapSpec(kind, key_size, value_size, entries, map_flags, inner=inner_of(kind))
        for kind in HERE
        for key_size, value_size in ((0, 0), (4, 4), (0, 4), (8, 4))
        for entries in (0, 4096)
        for map_flags in (0, 1, 2, 0x40, 0x41, 0x80, 0x180)
    ]
    specs += [MapSpec(kind, 4, 4, (1 << 31) + 1, inner=inner_of(kind)) for kind in HERE if "PERFMON" not in "".join(caps)]
    specs = [spec for spec in specs if spec.max_entries < 1 << 31 or check_spec(spec, caps=frozenset(caps)) != 0]
    with unprivileged_bpf(disabled):
        answers = asked_without_caps(specs, frozenset(caps))
    for spec, answer in zip(specs, answers, strict=True):
        assert check_spec(spec, caps=frozenset(caps), unprivileged_disabled=disabled != 0) == answer, spec
