"""Refusals explained: place, path, values and hint in 80 columns, and packets that were seen to walk there."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from support.objects import read
from support.programs import programs
from support.vectors import ROOT

from netbpf.cli.main import main
from netbpf.engine.interp.engine import InterpEngine
from netbpf.engine.interp.watch import StepRecorder
from netbpf.env import SteppedEnv
from netbpf.errors import EngineFault, NetbpfError, ProgramRejected
from netbpf.explain.refusal import format_refusal
from netbpf.explain.witness import Witness, find_witness
from netbpf.host.loader import load_spec
from netbpf.host.sim.host import SimHost
from netbpf.isa import opcodes as op
from netbpf.maps.create import create
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.program import ProgramSpec, Subprog, VerifiedProgram
from netbpf.sources.asm import parse

UNCHECKED = ROOT / "docs" / "examples" / "unchecked.s"
BEYOND = """
.map a array key=4 value=16 entries=4
    r6 = r1
    r0 = *(u8 *)skb[14]
    r7 = r0
    r7 &= 0x1f
    r1 = 0
    *(u32 *)(r10 - 4) = r1
    r2 = r10
    r2 += -4
    r1 = map[a]
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    if r7 > 20 goto out
    r0 += r7
    r1 = *(u8 *)(r0 + 0)
out:
    r0 = 0
    exit
"""
FAR_DOWN = """
    r6 = r1
    r0 = *(u32 *)skb[26]
    w0 &= 0xffffff00
    if w0 != 0x0a010200 goto out
    r0 = *(u16 *)skb[100]
    if r0 & 0x8000 goto out
    r3 = *(u32 *)(r6 + 0)
    if r3 < 200 goto out
    r3 = *(u32 *)(r6 + 16)
    if r3 != 0xdd86 goto out
    r0 = r8
out:
    exit
"""
COPIED = """
    r6 = r1
    r2 = 12
    r3 = r10
    r3 += -8
    r4 = 4
    call bpf_skb_load_bytes
    if r0 != 0 goto out
    r1 = *(u16 *)(r10 - 8)
    r1 = be16 r1
    if r1 != 0x88b5 goto out
    r1 = *(u8 *)(r10 - 5)
    r1 <<= 2
    r1 += 3
    if r1 != 171 goto out
    r0 = *(u64 *)(r1 + 0)
out:
    r0 = 0
    exit
"""
FILLED = """
.map known hash key=4 value=8 entries=2
    r6 = r1
    r0 = *(u8 *)skb[23]
    *(u32 *)(r10 - 4) = r0
    r2 = r10
    r2 += -4
    r1 = map[known]
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = *(u64 *)(r0 + 8)
out:
    r0 = 0
    exit
"""
NOWHERE = """
    r6 = r1
    r0 = *(u8 *)skb[23]
    r1 = r0
    r1 *= r0
    if r1 != 7 goto out
    r0 = r8
out:
    exit
"""


def refused(spec: ProgramSpec) -> dict[str, Any]:
    with SimHost(unprivileged_bpf_disabled=0).process() as process, pytest.raises(ProgramRejected) as caught:
        load_spec(process, spec)
    assert caught.value.diagnosis is not None
    found: dict[str, Any] = caught.value.diagnosis
    return found


def walks(spec: ProgramSpec, witness: Witness, diagnosis: dict[str, Any]) -> bool:
    """Run the packet in a way of our own: does it take the refusal's branches and come to its instruction?"""
    maps = [create(decl.spec, map_id=i + 1) for i, decl in enumerate(spec.maps)]
    for name, key in witness.entries:
        live = next(m for m in maps if m.spec.name == name)
        live.update(int(key).to_bytes(live.spec.key_size, "little"), bytes(live.spec.value_size))
    program = VerifiedProgram(spec.insns, 1, tuple(maps), (Subprog(0, len(spec.insns), 512),), proved=False)
    loaded, steps = InterpEngine().load(program, SteppedEnv()), StepRecorder()
    loaded.watch(steps)
    skb = receive(Record(1, 0, len(witness.frame), witness.frame))
    assert skb is not None
    fault = ""
    try:
        loaded.run_one(skb)
    except EngineFault as e:
        fault = e.message
    pcs = [step.pc for step in steps.steps]
    taken = [(a, b != a + 1) for a, b in pairwise(pcs) if any(p["insn"] == a for p in diagnosis["path"])]
    wanted = [(p["insn"], p["taken"]) for p in diagnosis["path"]]
    return taken[: len(wanted)] == wanted and diagnosis["insn"] in pcs and (not witness.fault or witness.fault == fault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (UNCHECKED.read_text(), "NULL pointer"),
        (BEYOND, "past its end"),
        (FAR_DOWN, ""),
        (COPIED, "no region has this address|pointer plus"),
        (FILLED, "past its end"),
    ],
    ids=["unchecked", "beyond", "far down", "copied", "filled"],
)
def test_a_packet_that_walks_there(text: str, fault: str) -> None:
    import re

    spec = parse(text)
    diagnosis = refused(spec)
    witness = find_witness(spec, diagnosis)
    assert witness is not None
    assert walks(spec, witness, diagnosis)
    assert re.search(fault, witness.fault)
    assert bool(witness.fault) == bool(fault)
    lines = list(format_refusal(diagnosis, witness.as_json()))
    assert all(len(line) <= 80 for line in lines)


def test_a_program_in_c_is_told_by_its_lines() -> None:
    """An object that checks the wrong pointer for NULL: the C line of the access, those of the branches, and a packet."""
    whole = read("flow_hash")
    insns, is_check = list(whole.insns), (op.BPF_JMP | op.BPF_JEQ, op.BPF_JMP | op.BPF_CALL)
    pc = next(pc for pc in range(1, len(insns)) if (insns[pc].code, insns[pc - 1].code) == is_check and not insns[pc].imm)
    insns[pc] = insns[pc]._replace(dst=op.BPF_REG_6)
    spec = whole._replace(insns=tuple(insns))
    diagnosis = refused(spec)
    lines = list(format_refusal(diagnosis))
    assert any(line.startswith("at flow_hash.c:") for line in lines), lines
    assert any(line.startswith("flow_hash.c:") for line in lines), "the branches have their lines too"
    witness = find_witness(spec, diagnosis)
    assert witness is not None
    assert walks(spec, witness, diagnosis)
    assert "NULL pointer" in witness.fault


def test_nothing_is_said_where_nothing_was_found() -> None:
    spec = parse(NOWHERE)
    diagnosis = refused(spec)
    assert find_witness(spec, diagnosis) is None
    assert not any("walks" in line for line in format_refusal(diagnosis))


@given(programs)
@settings(max_examples=60, deadline=None)
def test_any_refusal_is_explained(insns: tuple[Any, ...]) -> None:
    spec = ProgramSpec(tuple(insns))
    with SimHost().process() as process:
        try:
            load_spec(process, spec)
            return
        except ProgramRejected as e:
            diagnosis = e.diagnosis
        except NetbpfError:
            return
    if diagnosis:
        witness = find_witness(spec, diagnosis)
        assert all(len(line) <= 80 for line in format_refusal(diagnosis, witness.as_json() if witness else None))
        if witness is not None:
            assert walks(spec, witness, diagnosis)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(UNCHECKED), "--log-level", "0"]) == 65
    out = capsys.readouterr().out
    assert "rejected with EACCES" in out
    assert "the path there:\n     2: if r0 != 0x800 goto 15   not taken" in out
    assert "hint: Compare the pointer with NULL" in out
    assert "a packet that walks it (60 bytes, IPv4 10.0.0.1 > 10.0.0.2 UDP 50001 > " in out
    assert main(["verify", str(UNCHECKED), "--json"]) == 65
    answer = json.loads(capsys.readouterr().out)
    assert answer["diagnosis"]["insn"] == 14
    assert bytes.fromhex(answer["witness"]["packet"])[23] == 17


def test_source_lines_are_told() -> None:
    line = {"file": "/src/a.c", "line": 7, "column": 3, "text": "x = *p;"}
    told = {
        "kind": "k", "errno": "EACCES", "message": "R1 bad", "details": ["more"], "insn": 3,
        "instruction": "(79) r1 = *(u64 *)(r1 +0)", "register": 1, "line": line, "registers": {"R1": "scalar()"}, "hint": "Do.",
        "path": [{"insn": i, "text": "(15) if r1 == 0x0 goto pc+1", "taken": True, "line": line} for i in range(20)],
    }  # fmt: skip
    lines = list(format_refusal(told))
    assert lines[:5] == ["EACCES: R1 bad", "  more", "at a.c:7: x = *p;", "  insn 3: r1 = *(u64 *)(r1 +0)", "    R1 = scalar()"]
    assert "the path there, after 8 more branches:" in lines
    assert lines.count("a.c:7: x = *p;") == 1
