"""``replay.compare`` on both hosts: programs of every map kind that user space can read, every frame of the grid."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.kernel import needs_kernel
from support.packet_grid import capture_frames, own_frames

from netbpf.program import ProgramSpec
from netbpf.replay.compare import LabOptions, compare, run_both, run_on
from netbpf.sources.load import parse_program, read_program

pytestmark = needs_kernel
COUNTING = read_program(str(Path(__file__).parents[2] / "scenarios" / "counting.s"))
GRID = list(own_frames().values())
CAPTURED = list(capture_frames(20).values())


def program(text: str) -> ProgramSpec:
    return parse_program(text.encode(), "program.s")


def count_by_length(kind: str) -> str:
    """A counter a length, in a map of some kind, and a verdict of half the length."""
    return f"""
    .map m {kind} key=4 value=8 entries=64
        r6 = r1
        r7 = *(u32 *)(r1 + 0)
        r1 = r7
        r1 &= 63
        *(u32 *)(r10 - 4) = r1
        r1 = 1
        *(u64 *)(r10 - 16) = r1
        r2 = r10
        r2 += -4
        r1 = map[m]
        call bpf_map_lookup_elem
        if r0 == 0 goto new
        r1 = 1
        lock *(u64 *)(r0 + 0) += r1
        goto done
    new:
        r2 = r10
        r2 += -4
        r3 = r10
        r3 += -16
        r4 = 0
        r1 = map[m]
        call bpf_map_update_elem
    done:
        r0 = r7
        r0 >>= 1
        exit
    """


PUSH = """
    .map m {kind} key=0 value=8 entries=32
        r7 = *(u32 *)(r1 + 0)
        *(u64 *)(r10 - 8) = r7
        r2 = r10
        r2 += -8
        r3 = 0
        r1 = map[m]
        call bpf_map_push_elem
        r0 = r0
        r0 = 14
        exit
"""
RING = """
    .map m ringbuf key=0 value=0 entries=65536
        r7 = *(u32 *)(r1 + 0)
        *(u64 *)(r10 - 8) = r7
        r2 = r10
        r2 += -8
        r3 = 8
        r4 = 0
        r1 = map[m]
        call bpf_ringbuf_output
        r0 = 0
        exit
"""
PERF = """
    .map m perf_event_array key=4 value=4 entries=0
        r7 = *(u32 *)(r1 + 0)
        *(u64 *)(r10 - 8) = r7
        r4 = r10
        r4 += -8
        r5 = 8
        r3 = 0xffffffff ll
        r2 = map[m]
        call bpf_perf_event_output
        r0 = 1
        exit
"""
KINDS = ("hash", "array", "lru_hash", "percpu_hash", "percpu_array", "lru_percpu_hash")
PROGRAMS = {
    **{kind: count_by_length(kind) for kind in KINDS},
    "queue": PUSH.format(kind="queue"),
    "stack": PUSH.format(kind="stack"),
    "ringbuf": RING,
    "perf_event_array": PERF,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_kind_of_map_is_read_alike(name: str) -> None:
    ours, theirs, found = run_both(program(PROGRAMS[name]), CAPTURED[:150], log_level=2)
    assert found is None, str(found)
    assert ours.maps["m"] == theirs.maps["m"]
    assert any(int.from_bytes(value, "little") for _, value in ours.maps["m"])


@pytest.mark.parametrize("kind", ["tap", "veth", "lo"])
def test_the_counting_example_on_the_grid(kind: str) -> None:
    _, theirs, found = run_both(COUNTING, GRID + CAPTURED, options=LabOptions(kind=kind, wait_s=0.002), log_level=2)
    assert found is None, str(found)
    assert theirs.backend == "kernel"
    assert sum(int.from_bytes(v, "little") for _, v in theirs.maps["counts"]) > 150


def test_classic_filters_and_refusals() -> None:
    classic = parse_program(b"4\n40 0 0 12\n21 0 1 2048\n6 0 0 30\n6 0 0 0\n", "f.ddd")
    ours, _, found = run_both(classic, CAPTURED)
    assert found is None, str(found)
    assert 0 < ours.accepted < len(CAPTURED)
    for text in ("r0 = r5\nexit\n", "r0 = 0\n", "r0 = *(u64 *)(r1 + 3)\nexit\n"):
        ours, theirs, found = run_both(program(text), CAPTURED[:1], log_level=1)
        assert found is None, str(found)
        assert ours.errno == theirs.errno != 0


def test_a_difference_is_found_where_there_is_one() -> None:
    """Programs that agree on the length of every packet but one."""
    texts = ["r0 = 60\nexit\n", "r6 = *(u32 *)(r1 + 0)\nr0 = 60\nif r6 != 74 goto end\nr0 = 61\nend:\nexit\n"]
    a, b = (run_on(host, program(text), CAPTURED) for host, text in zip(("sim", "kernel"), texts, strict=True))
    found = compare(a, b)
    assert found is not None
    assert found.kind == "packet"
    assert len(found.frame) in (74, 78)
    assert "kept 60 of 74 bytes" in str(found)
    assert "kept 61 of 74 bytes" in str(found)
