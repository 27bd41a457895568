"""bpf_for_each_map_elem in native code while the function changes the map: elements, order, count, bytes of the interpreter."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.engines import CHECKED, INTERP, NATIVE, new_env
from support.programs_of import loaded_program, loaded_spec
from support.running import TCP_FRAME, loopback_skb
from support.walks import LOG_BYTES, steps, visited, walking

from netbpf.engine.llvm.module import module
from netbpf.engine.llvm.variant import Variant
from netbpf.env import SteppedEnv
from netbpf.packet.skbuff import SkBuff
from netbpf.program import VerifiedProgram

KINDS = [
    "hash key=4 value=8 entries=40", "hash key=4 value=8 entries=8 flags=64", "lru_hash key=4 value=8 entries=20",
    "lru_hash key=4 value=8 entries=20 flags=2", "percpu_hash key=4 value=8 entries=40",
    "lru_percpu_hash key=4 value=8 entries=12", "array key=4 value=8 entries=25", "percpu_array key=4 value=8 entries=25",
]  # fmt: skip


def walks(engine: Any, kind: str, *, inside: bool) -> list[tuple[Any, ...]]:
    """R0, keys shown and the walked map's bytes of some runs, keys put in and steps changed between them."""
    rng = random.Random(kind)
    program = loaded_spec(walking(kind, inside=inside))
    by_name: dict[str, Any] = {m.spec.name: m for m in program.maps}
    walked = by_name["outer"].objects()[0] if inside else by_name["m"]
    loaded, found = engine.load(program, new_env()), []
    for _ in range(12):
        for key in (rng.randrange(30) for _ in range(15)):
            walked.update(key.to_bytes(4, "little"), bytes([key, *bytes(7)]))
        by_name["steps"].update(bytes(4), steps(rng, 0.3, 0.3, 30))
        by_name["log"].update(bytes(4), bytes(LOG_BYTES))
        r0 = loaded.run_one(loopback_skb(TCP_FRAME))
        found.append((r0, visited(by_name["log"].lookup_user(bytes(4))), bytes(walked.memory)))
    return found


def calls_back(program: VerifiedProgram) -> bool:
    return module(program, Variant("one", trace_clock=True, checked=False)).calls_back


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_map_that_changes_while_it_is_walked(kind: str, inside: bool) -> None:
    want = walks(INTERP, kind, inside=inside)
    assert len({keys for _, keys, _ in want}) > 3
    assert walks(NATIVE, kind, inside=inside) == want
    assert not calls_back(loaded_spec(walking(kind, inside=inside)))


@pytest.mark.parametrize("kind", ["hash key=4 value=8 entries=40", "array key=4 value=8 entries=25"])
def test_a_checked_program_may_read_its_keys(kind: str) -> None:
    assert walks(CHECKED, kind, inside=False) == walks(INTERP, kind, inside=False)


# --- what LLVM is told of the addresses of values --------------------------------------------------------------------------
LOOK_UP = """
    *(u32 *)(r10 - 8) = 0
    r1 = map[m]
    r2 = r10
    r2 += -8
    call bpf_map_lookup_elem
"""
COUNT_ON = """
    r7 = *(u64 *)(r6 + 0)
    *(u32 *)(r10 - 8) = 0
    r1 = r7
    r1 += 1
    *(u64 *)(r10 - 16) = r1
    r1 = map[m]
    r2 = r10
    r2 += -8
    r3 = r10
    r3 += -16
    r4 = 0
    call bpf_map_update_elem
    r1 = *(u64 *)(r6 + 0)
    r7 *= 100
    r0 = r7
    r0 += r1
"""
GIVEN = f"{LOOK_UP}    if r0 == 0 goto out\n    r1 = r0\n    call f\nout:\n    exit\nf:\n    r6 = r1\n{COUNT_ON}    exit\n"
RETURNED = f"    call f\n    if r0 == 0 goto out\n    r6 = r0\n{COUNT_ON}out:\n    exit\nf:\n{LOOK_UP}    exit\n"


@pytest.mark.parametrize("text", [GIVEN, RETURNED])
def test_a_value_passed_between_functions_is_the_maps(text: str) -> None:
    """An update of the map is seen through the address that came from another function."""
    loaded = NATIVE.load(loaded_program(".map m array key=4 value=8 entries=2\n" + text), SteppedEnv())
    assert [loaded.run_one(SkBuff(head=bytes(60), len=60)) for _ in range(4)] == [1, 102, 203, 304]
