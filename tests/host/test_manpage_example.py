"""docs/examples/manpage_bpf.py counts what an independent reading of the capture counts, on ours and on the running kernel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from support.kernel import needs_kernel
from support.packet_grid import PCAPS

from netbpf.host.choose import get_host

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "manpage_bpf.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("manpage_bpf", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counts_of(example: ModuleType, backend: str, kind: str, capture: str) -> list[tuple[int, int]]:
    with get_host(backend).lab(kind=kind) as lab:
        return list(example.example(lab, example.by_second(PCAPS / capture)))


def byte_23(example: ModuleType, capture: str) -> list[tuple[int, int]]:
    """The two counts after each second, by looking at the bytes: what the page's program does."""
    tcp = udp = 0
    out = []
    for frames in example.by_second(PCAPS / capture):
        protocols = [frame[23] for frame in frames if len(frame) > 23]
        tcp, udp = tcp + protocols.count(6), udp + protocols.count(17)
        out.append((tcp, udp))
    return out


def test_the_simulator_counts_the_session(example: ModuleType) -> None:
    assert counts_of(example, "sim", "tap", "session.pcap") == byte_23(example, "session.pcap")


def test_lo_counts_everything_twice(example: ModuleType) -> None:
    once = byte_23(example, "session.pcap")
    assert counts_of(example, "sim", "lo", "session.pcap") == [(2 * tcp, 2 * udp) for tcp, udp in once]


@pytest.mark.kernel
@pytest.mark.skipif(needs_kernel[1].args[0], reason=needs_kernel[1].kwargs["reason"])
@pytest.mark.parametrize("kind", ["tap", "veth", "lo"])
@pytest.mark.parametrize(
    "capture", ["session.pcap", "vlan.pcap", "qinq.pcap", "fragments.pcap", "ipv6-extensions.pcap", "runts.pcap"]
)
def test_the_kernel_counts_the_same(example: ModuleType, capture: str, kind: str) -> None:
    assert counts_of(example, "kernel", kind, capture) == counts_of(example, "sim", kind, capture)


def test_it_runs_as_a_script(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-1] == "TCP 610 UDP 396 packets"
