"""The scenarios that ship: they pass on both engines, and on the running kernel with no difference."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.kernel import needs_kernel

from netbpf.engine.choose import native_obstacle
from netbpf.scenario.read import read_file
from netbpf.scenario.show import format_result
from netbpf.scenario.suite import PASSED, SKIPPED, Result, items_of, run_item

FILES = sorted((Path(__file__).parents[2] / "scenarios").glob("*.scenario.toml"))
NOT_ON_A_KERNEL = {
    "refused_unprivileged": "kernel.unprivileged_bpf_disabled is",
    "set_fields": "the kernel lets nobody set mark, queue_mapping, pkt_type of a packet that comes in",
    "vlan": "the view of a file is libpcap's, not a socket's",
    "trace": "trace output cannot be read here",  # in a kernel without tracefs
}


def run_all(path: Path, backend: str, engine: str) -> list[Result]:
    return [run_item(item) for item in items_of(read_file(str(path)), backend, engine)]


def bad(results: list[Result]) -> str:
    return "\n\n".join(f"{r.item.name}: {format_result(r)}" for r in results if r.status not in (PASSED, SKIPPED))


def test_there_are_enough() -> None:
    assert len(FILES) >= 12


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name.removesuffix(".scenario.toml"))
@pytest.mark.parametrize("engine", ["interp", "native"])
def test_on_the_simulator(path: Path, engine: str) -> None:
    if engine == "native" and native_obstacle():
        pytest.skip(native_obstacle())
    results = run_all(path, "sim", engine)
    assert not bad(results), bad(results)
    assert all(r.status == PASSED for r in results)


class TestKernel:
    pytestmark = needs_kernel

    @pytest.mark.parametrize("path", FILES, ids=lambda p: p.name.removesuffix(".scenario.toml"))
    def test_on_both_with_no_difference(self, path: Path) -> None:
        results = [r for r in run_all(path, "both", "interp") if r.item.backend == "kernel"]
        assert not bad(results), bad(results)
        for skipped in (r for r in results if r.status == SKIPPED):
            assert NOT_ON_A_KERNEL.get(path.name.removesuffix(".scenario.toml"), "?") in skipped.reason
