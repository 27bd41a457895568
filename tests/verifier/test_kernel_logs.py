"""Generated and mutated programs, asked of the running kernel and of us: verdict, errno and the whole level-2 log."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from support.kernel import needs_kernel

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from kernel_oracle import Oracle
from verifier_fuzz import MapSet, Tally, ask_kernel, compare, next_record, ours
from verifier_records import mask_addresses

pytestmark = needs_kernel
PROGRAMS = 250


@pytest.mark.parametrize("privilege", ["priv", "capbpf", "unpriv"])
def test_same_log(privilege: str) -> None:
    rng, maps, tally = random.Random(f"logs {privilege}"), MapSet(), Tally()
    records = [next_record(rng, [], [], privilege) for _ in range(PROGRAMS)]
    codes = [maps.patched(record) for record in records]
    differing = []
    with Oracle([privilege]) as oracle:
        for record, code in zip(records, codes, strict=True):
            kernel = ask_kernel(oracle, privilege, code, record["flags"], 2, maps.extra(record))
            if kernel is None:
                continue
            mine = ours(record, privilege, 2, maps.fds(record))
            if compare(tally, record, privilege, kernel, mine):
                differing.append((record["insns"], mask_addresses(kernel[1])[-400:], mask_addresses(mine[1])[-400:]))
    assert not differing, (len(differing), differing[0])
    assert tally.cells["both_accept"] > 20
