"""Which release a whole program needs."""

from __future__ import annotations

import pytest
from support.vectors import ROOT

from netbpf.sources.asm import parse
from netbpf.sources.load import read_program
from netbpf.verifier.releases import needed_release


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("r0 = 0\nexit\n", "3.18"),
        ("call bpf_jiffies64\nexit\n", "5.6"),
        ("r0 = 0\nr0 s/= 3\nexit\n", "6.6"),
        (".map events ringbuf entries=4096\nr0 = 0\nexit\n", "5.8"),
    ],
)
def test_needed_release(text: str, release: str) -> None:
    assert needed_release(parse(text, "p.s")) == release


def test_the_example_needs_packet_loads() -> None:
    assert needed_release(read_program(str(ROOT / "scenarios" / "counting.s"))) == "3.19"
