"""A refusal as data: kind, place, registers, the branches that led there, the C line."""

from __future__ import annotations

import json
import re

import pytest
from support.verdicts import ARRAY, judge

from netbpf.verifier.diagnosis import RULES

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
