"""A refusal as data: kind, place, registers, the branches that led there, the C line."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

import pytest
from support.verdicts import ARRAY, PRIVILEGES, judge

from netbpf.isa.instruction import decode
from netbpf.maps.spec import MapSpec
from netbpf.verifier.check import verify
from netbpf.verifier.diagnosis import RULES

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from verifier_programs import generate
from verifier_records import load_request

LOOKUP = (
    ".map array array key=4 value=48 entries=2\n*(u32 *)(r10 - 4) = 5\nr6 = *(u32 *)(r1 + 0)\nr2 = r10\nr2 += -4\n"
    "r1 = map[array]\ncall bpf_map_lookup_elem\nif r0 == 0 goto out\nif r6 > 64 goto out\nr0 += r6\n{use}\nout: r0 = 0\nexit"
)


def test_out_of_bounds() -> None:
    result = judge(LOOKUP.format(use="r1 = *(u64 *)(r0 + 0)"), ARRAY)
    told = result.diagnosis
    assert told is not None
    assert json.loads(json.dumps(told)) == told
    assert (told["kind"], told["errno"], told["insn"], told["register"]) == ("out_of_bounds", "EACCES", 10, 0)
    assert told["message"] == "R0 max value is outside of the allowed memory range"
    assert told["details"] == ["invalid access to map value, value_size=48 off=64 size=8", told["message"]]
    assert told["instruction"] == "(79) r1 = *(u64 *)(r0 +0)"
    assert [(step["insn"], step["taken"]) for step in told["path"]] == [(7, False), (8, False)]
    assert told["registers"]["R0"].startswith("map_value(map=array,ks=4,vs=48,smin=smin32=0,smax=umax=smax32=umax32=64")
    assert told["hint"].startswith("Bound the offset")


def test_the_path_tells_which_way_each_branch_went() -> None:
    text = (
        "r0 = *(u32 *)(r1 + 0)\nif r0 == 3 goto a\nr0 = 0\nexit\na: if r0 == 4 goto b\nif r1 != 0 goto b\nexit\nb: r0 = r9\nexit"
    )
    told = judge(text).diagnosis
    assert told is not None
    assert (told["kind"], told["register"]) == ("uninitialized_register", 9)
    assert [(step["insn"], step["taken"]) for step in told["path"]] == [(1, True), (4, False), (5, True)]


def test_the_path_goes_through_checkpoints_and_calls() -> None:
    text = (
        "r6 = 0\nl: r6 += 1\nif r6 < 30 goto l\nr1 = r6\ncall f\nr0 = r0\nexit\n"
        "f: r0 = 1\nif r1 > 3 goto bad\nexit\nbad: r0 = *(u64 *)(r1 + 0)\nexit"
    )
    told = judge(text, level=0).diagnosis
    assert told is not None
    steps = [(step["insn"], step["taken"]) for step in told["path"]]
    assert steps == [(2, True)] * 29 + [(2, False), (8, True)]
    assert told["message"] == "R1 invalid mem access 'scalar'"


def test_before_the_walk_there_is_no_path() -> None:
    told = judge("goto +1\nr0 = 0\nr0 = 0\nexit").diagnosis
    assert told is not None
    assert (told["kind"], told["insn"], told["path"], told["registers"]) == ("unreachable_code", 1, [], {})


@pytest.mark.parametrize(
    ("text", "mode", "kind"),
    [
        ("exit", "priv", "uninitialized_register"),
        ("r0 = r1\nexit", "unpriv", "pointer_leak"),
        ("r10 = 1\nr0 = 0\nexit", "priv", "frame_pointer_write"),
        ("r0 = *(u64 *)(r10 - 520)\nexit", "priv", "invalid_stack_access"),
        ("r0 = *(u32 *)(r1 + 3)\nexit", "priv", "invalid_context_access"),
        ("r0 = 1\nr0 /= 0\nexit", "priv", "bad_constant"),
        ("call 9999\nexit", "priv", "unknown_helper"),
        ("r1 = 5\nr0 = *(u8 *)(r1 + 0)\nexit", "priv", "invalid_pointer"),
        ("r1 *= 2\nr0 = 0\nexit", "priv", "pointer_arithmetic"),
        ("r0 = 0\nl: r0 += 1\nif r0 < 4 goto l\nexit", "unpriv", "loop_not_allowed"),
    ],
)
def test_kinds(text: str, mode: str, kind: str) -> None:
    told = judge(text, mode=mode).diagnosis
    assert told is not None
    assert told["kind"] == kind


def test_rules_are_well_formed() -> None:
    for rule in RULES:
        re.compile(rule.pattern)
        assert re.fullmatch(r"[a-z_]+", rule.kind)
        assert rule.hint.endswith(".")


def test_two_maps_of_one_tail_call_are_told_at_the_call() -> None:
    """Found after the walk, when no path stands anywhere."""
    progs = MapSpec(3, 4, 4, 4, name="progs")
    maps = ".map a prog_array key=4 value=4 entries=4\n.map b prog_array key=4 value=4 entries=4\n"
    setup = "r6 = r1\nr2 = map[a]\nr3 = *(u32 *)(r1 + 0)\nif r3 > 9 goto +2\nr2 = map[b]\n"
    text = f"{maps}{setup}r1 = r6\nr3 = 0\ncall bpf_tail_call\nr0 = 0\nexit"
    told = judge(text, progs, progs, mode="unpriv").diagnosis
    assert told is not None
    assert (told["kind"], told["insn"], told["instruction"]) == ("map_type", 9, "(85) call bpf_tail_call#12")


@pytest.mark.parametrize("privilege", list(PRIVILEGES))
def test_every_refusal_is_explained(privilege: str) -> None:
    """Generated programs: a kind, a hint, an instruction once the walk began, and what the register named in the message held."""
    rng, refused = random.Random(f"told {privilege}"), 0
    for _ in range(150):
        record = generate(rng, privilege != "unpriv")
        if any(insn.off < 0 for insn in decode(bytes.fromhex(record["insns"])) if insn.code & 7 in (5, 6)):
            continue  # a loop may take a million steps
        result = verify(load_request(record, "socket_filter", privilege, 1))
        if not result.errno:
            continue
        told = result.diagnosis
        assert told is not None
        assert (told["kind"] != "other", told["hint"][-1], told["message"] != "") == (True, ".", True), told
        if result.stats.insn_processed:
            assert told["instruction"], told
            named = told["register"]
            assert named is None or f"R{named}" in told["registers"] or named > 10, told
        refused += 1
    assert refused > 40
