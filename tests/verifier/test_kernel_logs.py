"""Generated and mutated programs, asked of the running kernel and of us: verdict, errno and the whole level-2 log."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from support.kernel import needs_kernel

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from kernel_oracle import Oracle
from verifier_btf import LIBRARY
from verifier_fuzz import MapSet, Tally, ask_kernel, compare, crashes_the_kernel, next_record, ours
from verifier_programs import make_record
from verifier_records import mask_addresses

from netbpf.isa.instruction import Instruction

pytestmark = needs_kernel
PROGRAMS = 200


@pytest.mark.parametrize("privilege", ["priv", "capbpf", "unpriv"])
def test_same_log(privilege: str) -> None:
    rng, maps, tally = random.Random(f"logs {privilege}"), MapSet(), Tally()
    records = [next_record(rng, [], [], privilege) for _ in range(PROGRAMS)]
    codes = [maps.patched(record) for record in records]
    differing = []
    with Oracle([privilege]) as oracle:
        for record, code in zip(records, codes, strict=True):
            mine = ours(record, privilege, 2, maps.fds(record))
            if crashes_the_kernel(mine):
                continue
            kernel = ask_kernel(oracle, privilege, code, record["flags"], 2, maps.extra(record))
            if kernel is None:
                continue
            if compare(tally, record, privilege, kernel, mine):
                differing.append((record["insns"], mask_addresses(kernel[1])[-400:], mask_addresses(mine[1])[-400:]))
    assert not differing, (len(differing), differing[0])
    assert tally.cells["both_accept"] > 20


TAIL = [(0xBF, 6, 1), (0x18, 2, 1), (0,), (0xB7, 3), (0x85, 0, 0, 0, 12), (0xB7, 0, 0, 0, 1), (0x95,)]
TAIL_AS_CALLBACK = [(0x79, 1, 2), *TAIL[1:]]
CALL_LOOP = [
    *((0x7B, 10, 1, -8), (0xB7, 1, 0, 0, 5), (0x18, 2, 4, 0, 6), (0,), (0xBF, 3, 10)),
    *((0x07, 3, 0, 0, -8), (0xB7, 4), (0x85, 0, 0, 0, 181), (0x95,)),
]
AFTER_A_COMPARE = [
    *((0xBF, 7, 1), (0x61, 2, 1), (0x25, 2, 0, 3, 5), (0x85, 0, 1, 0, 3), (0x61, 3, 7), (0xB7, 0), (0x95,)),
]
MIDDLE = [(0x85, 0, 1, 0, 2), (0xB7, 0, 0, 0, 3), (0x95,)]
STATIC, GLOBAL = LIBRARY.statics[0], LIBRARY.globals[0]


@pytest.mark.parametrize(
    ("insns", "at", "functions"),
    [
        ([(0x85, 0, 1, 0, 1), (0x95,), *TAIL], 3, [(2, STATIC)]),
        ([(0x85, 0, 1, 0, 1), (0x95,), *TAIL], 3, [(2, GLOBAL)]),
        ([*AFTER_A_COMPARE, *TAIL], 8, [(7, STATIC)]),
        ([(0x85, 0, 1, 0, 1), (0x95,), *MIDDLE, *TAIL], 6, [(2, STATIC), (5, STATIC)]),
        ([*CALL_LOOP, *TAIL_AS_CALLBACK], 10, [(9, LIBRARY.statics[8])]),  # the kernel calls this a bug of its own
    ],
    ids=["static", "global", "two paths", "two deep", "callback"],
)
def test_tail_calls_in_functions(insns: list[tuple[int, ...]], at: int, functions: list[tuple[int, int]]) -> None:
    maps = MapSet()
    record = make_record([Instruction(*i) for i in insns], [[at, "progs", "fd", 0]], 0)
    record |= {"btf_bytes": LIBRARY.bytes.hex(), "func_rows": [(0, LIBRARY.main[0]), *functions]}
    code = maps.patched(record)
    with Oracle(["priv"]) as oracle:
        errno, log = oracle.ask("priv", code, extra=maps.extra(record))
    mine = ours(record, "priv", 2, maps.fds(record))
    assert (mine[0], mask_addresses(mine[1])) == (errno, mask_addresses(log))
