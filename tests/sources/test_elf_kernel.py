"""The objects on the running kernel: it takes every program as the simulator does, in the same words, and what packets leave in
their maps is the same."""

from __future__ import annotations

import re

import pytest
from support.kernel import needs_kernel
from support.objects import NAMES, object_bytes, read
from support.packet_grid import MAC, capture_frames

from netbpf.abi import sockopt as so
from netbpf.abi.maps import MapType
from netbpf.host.base import Host
from netbpf.host.choose import get_host
from netbpf.host.lab import open_packet_socket, send_and_gather
from netbpf.host.linux.host import LinuxHost
from netbpf.host.loader import load_spec
from netbpf.host.sim.host import SimHost
from netbpf.program import ProgramSpec
from netbpf.sources.elf import list_programs

pytestmark = needs_kernel
PROGRAMS = [(name, entry.name) for name in NAMES for entry in list_programs(object_bytes(name))]
COUNTING = [
    ("bytes_by_protocol", "count"),
    ("legacy_maps", "count"),
    ("flow_hash", "count"),
    ("flow_tail_calls", "filter"),
    ("globals", "sum_up"),
    ("globals", "settings_of"),
    ("map_in_map", "count"),
    ("callback", "sum_up"),
    ("core", "ask"),
]
COMPARED = {MapType.ARRAY, MapType.HASH}
# what a level-2 log says of this machine and this moment: addresses of maps (their columns with them), times
_UNEQUAL = re.compile(r"\(18\) (r\d+) = 0x[0-9a-f]+ *|verification time .*")


def unpinned(spec: ProgramSpec) -> ProgramSpec:
    """Without pins: nothing is left on this machine."""
    maps = tuple(d._replace(pin_path="") for d in spec.maps)
    return spec._replace(maps=maps, others=tuple(o._replace(maps=maps) for o in spec.others))


def log_of(host: Host, spec: ProgramSpec) -> list[str]:
    with host.process() as process:
        loaded = load_spec(process, spec, log_level=2)
        return [_UNEQUAL.sub(r"(18) \1 = ...", line) for line in process.load_log(loaded.prog_fd).splitlines()]


@pytest.mark.parametrize(("name", "program"), PROGRAMS)
def test_the_verifier_says_the_same(name: str, program: str) -> None:
    spec = unpinned(read(name, program))
    assert log_of(SimHost(), spec) == log_of(LinuxHost(), spec)


def counted(backend: str, spec: ProgramSpec) -> dict[str, dict[bytes, bytes]]:
    """What the maps hold after frames of a capture came in by a TAP; of a hash in order of keys."""
    frames = list(capture_frames().values())[:300]
    with get_host(backend).lab(kind="tap", mac=MAC) as lab:
        process = lab.process
        witness = open_packet_socket(lab)
        loaded = load_spec(process, spec)
        with open_packet_socket(lab) as sock:
            sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, loaded.prog_fd)
            send_and_gather(lab, sock, frames, witness=witness, wait_s=0.002)
        names = [d.spec.name for d in spec.maps if d.spec.map_type in COMPARED]
        return {name: dict(sorted(process.map_items(loaded.map_fds[name]))) for name in names}


@pytest.mark.parametrize(("name", "program"), COUNTING)
def test_packets_leave_the_same_in_maps(name: str, program: str) -> None:
    spec = unpinned(read(name, program))
    sim, kernel = counted("sim", spec), counted("kernel", spec)
    assert sim == kernel
    assert any(any(v) for m in sim.values() for v in m.values()), "nothing was counted"


def test_core_answers_are_the_running_kernels() -> None:
    """As libbpf's documentation says of each question; the numbers are this kernel's struct __sk_buff and enum bpf_map_type."""
    contents = counted("kernel", read("core", kernel=""))["core.bss"][bytes(4)]
    answers = [int.from_bytes(contents[i : i + 4], "little") for i in range(0, 40, 4)]
    assert answers[2:] == [0, 1, 0, 4, 0, 192, int(MapType.RINGBUF), 0]
