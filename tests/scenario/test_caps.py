"""The capabilities of the process that loads a scenario's program, on the simulator and on the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.kernel import needs_kernel
from support.sysctl import SYSCTL, unprivileged_bpf

from netbpf.scenario.read import read_file, read_text
from netbpf.scenario.show import format_result
from netbpf.scenario.suite import PASSED, SKIPPED, items_of, run_item

SHIPPED = Path(__file__).parents[2] / "scenarios" / "refused_unprivileged.scenario.toml"
COUNT = '''netbpf = 1
[program]
caps = "CAPS"
asm = """
.map seen array key=4 value=8 entries=1
    *(u32 *)(r10 - 4) = 0
    r2 = r10
    r2 += -4
    r1 = map[seen]
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
out:
    r0 = 0
    exit
"""
[maps.seen]
entries = { 0 = 5 }
[[packet]]
hex = "020000000001 020000000002 0800 45"
expect = "drop"
[expect.maps]
seen.entries = { 0 = 6 }
'''


@pytest.mark.parametrize("caps", ["all", "bpf", "none"])
def test_a_harmless_program_is_loaded_by_anyone_and_runs(caps: str) -> None:
    for engine in ("interp", "native"):
        (item,) = items_of(read_text(COUNT.replace("CAPS", caps), "f"), "sim", engine)
        assert run_item(item).status == PASSED


class TestKernel:
    pytestmark = needs_kernel

    def test_what_is_refused_without_capabilities(self) -> None:
        if SYSCTL.read_text().strip() == "1":
            pytest.skip("kernel.unprivileged_bpf_disabled is 1 for good")
        with unprivileged_bpf(0):
            texts = [read_text(COUNT.replace("CAPS", caps), "f") for caps in ("bpf", "none")]
            for cases in (*texts, read_file(str(SHIPPED))):
                for item in items_of(cases, "both"):
                    found = run_item(item)
                    assert found.status == PASSED, format_result(found)

    def test_where_nobody_may(self) -> None:
        if SYSCTL.read_text().strip() == "1":
            pytest.skip("kernel.unprivileged_bpf_disabled is 1 for good")
        (item,) = items_of(read_text(COUNT.replace("CAPS", "none"), "f"), "kernel")
        with unprivileged_bpf(2):
            found = run_item(item)
        assert found.status == SKIPPED
        assert "unprivileged_bpf_disabled is 2" in found.reason
