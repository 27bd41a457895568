"""Recorded programs on the native engine: what the kernel returned, and all that the interpreter leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from support.engines import CHECKED, INTERP, NATIVE, proved_program, run_loaded
from support.running import FRAMES, loopback_skb, unproved
from support.vectors import read_jsonl, vectors_dir
from test_interp_vectors import NOT_OURS, bpf_test_skb

from netbpf.env import SteppedEnv
from netbpf.errors import EngineFault, NetbpfError
from netbpf.isa.instruction import decode
from netbpf.program import VerifiedProgram
from netbpf.sources.conformance import parse

pytestmark = pytest.mark.vectors

STEP = int(os.environ.get("NETBPF_VECTOR_STEP", "4"))  # 1 runs every program of test_bpf

TELL_ADDRESSES = {  # what they return or store is an address, or part of one
    "verifier_search_pruning.c:state_equality_check_way_1", "verifier_spill_fill.c:check_corrupted_spill_fill_msb",
    "verifier/atomic_fetch.c:0", "verifier/calls.c:34",
}  # fmt: skip


def accepted(name: str, step: int) -> Iterator[dict[str, Any]]:
    """Every ``step``-th accepted socket filter of a file."""
    for k, record in enumerate(read_jsonl(vectors_dir() / "verifier" / f"{name}.jsonl.gz")):
        if k % step or record["prog_type"] != "socket_filter" or record.get("mode") == "unpriv":
            continue
        if (record.get("kernel") or record)["verdict"] == "accept" and record["id"] not in {*NOT_OURS, *TELL_ADDRESSES}:
            yield record


@pytest.mark.parametrize(("name", "step"), [("selftests", 7), ("alu", 13), ("sweep", 37)])
def test_proved_programs_do_what_they_do_in_the_interpreter(name: str, step: int) -> None:
    wrong, ran = [], 0
    for record in accepted(name, step):
        skbs = [loopback_skb(frame) for frame in FRAMES.values()]
        programs = [proved_program(record) for _ in range(2)]
        if programs[0] is None or programs[1] is None:
            continue
        ran += 1
        engine = CHECKED if ran % 3 == 0 else NATIVE
        if run_loaded(engine.load, programs[1], skbs) != run_loaded(INTERP.load, programs[0], skbs):
            wrong.append((record["id"], engine.checked))
    assert not wrong
    assert ran > 20


def test_bpf_programs_give_their_expected_results() -> None:
    wrong = []
    for k, record in enumerate(read_jsonl(vectors_dir() / "test_bpf" / "test_bpf.jsonl.gz")):
        if record["kind"] != "ebpf" or k % STEP:
            continue
        loaded = NATIVE.load(unproved(decode(bytes.fromhex(record["insns"]))), SteppedEnv(1))
        for size, want in record["tests"]:
            large = "FLAG_LARGE_MEM" in record["flags"]
            try:
                r0 = loaded.run_memory(bytearray(8192)) if large else loaded.run_one(bpf_test_skb(record, size))
            except NetbpfError as e:
                wrong.append((record["name"], size, want, str(e)))
                continue
            if r0 & 0xFFFF_FFFF != want:
                wrong.append((record["name"], size, want, r0))
    assert not wrong


def conformance_outcome(engine: Any, program: VerifiedProgram, memory: bytes) -> tuple[Any, ...]:
    own = bytearray(memory)
    try:
        return engine.load(program, SteppedEnv(1)).run_memory(own), bytes(own)
    except EngineFault as fault:
        return "fault", fault.pc, bytes(own)


def test_conformance_programs_return_and_fault_as_in_the_interpreter() -> None:
    paths = sorted((vectors_dir() / "conformance").glob("*.data"))
    wrong = []
    for path in paths:
        test = parse(path.read_text(), path.name)
        program = VerifiedProgram.unproved(test.insns)
        got, want = (conformance_outcome(engine, program, test.memory or b"") for engine in (NATIVE, INTERP))
        if got != want or (test.result is not None and got[0] != test.result):
            wrong.append((path.name, test.result, want[0], got[0]))
    assert not wrong
    assert len(paths) > 200
