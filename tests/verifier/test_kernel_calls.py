"""Random helper calls, asked of the running kernel and of us: errno and the whole level-2 log."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from support.kernel import needs_kernel
from support.random_calls import random_calls

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from kernel_oracle import Oracle
from verifier_fuzz import MapSet, ask_kernel, ours
from verifier_records import mask_addresses

pytestmark = needs_kernel
PROGRAMS = 250
NEEDS_BTF = "needs the kernel's BTF"


@pytest.mark.parametrize("privilege", ["priv", "capbpf", "unpriv"])
def test_same_log(privilege: str) -> None:
    rng, maps = random.Random(f"calls {privilege}"), MapSet()
    records = [random_calls(rng) for _ in range(PROGRAMS)]
    codes = [maps.patched(record) for record in records]
    accepted = 0
    with Oracle([privilege]) as oracle:
        for record, code in zip(records, codes, strict=True):
            answer = ask_kernel(oracle, privilege, code, record["flags"], 2, ())
            if answer is None:
                continue
            error, log = answer
            mine, my_log, _ = ours(record, privilege, 2, maps.fds(record))
            if NEEDS_BTF in my_log:
                continue
            assert (mine, mask_addresses(my_log)) == (error, mask_addresses(log)), record["insns"]
            accepted += not error
    assert accepted > 5
