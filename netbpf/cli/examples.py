"""Examples of each command: below its help, and in docs/cli.md, whose commands a test runs. A table only."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "replay": (
        "netbpf replay trace.pcap --filter tcp port 443",
        "netbpf replay trace.pcap --prog flows.o --report report.html",
        "netbpf replay trace.pcap --prog p.s -w kept.pcap -q --dump none",
    ),
    "attach": (
        "netbpf attach eth0 --filter tcp port 443 --duration 10  # as root",
        "netbpf attach tap0 --tap --prog p.s --feed trace.pcap  # as root",
    ),
    "verify": (
        "netbpf verify p.s",
        "netbpf verify flows.o:read_ip --log-level 2",
        "netbpf verify --filter tcp port 443",
    ),
    "why": (
        "netbpf why trace.pcap -n 37 --prog p.s",
        "netbpf why trace.pcap --diff 37 38 --filter udp",
    ),
    "test": (
        "netbpf test scenarios",
        "netbpf test scenarios/ports.scenario.toml --junit report.xml",
        "netbpf test scenarios/ports.scenario.toml --backend both  # as root",
    ),
    "cover": (
        "netbpf replay trace.pcap --prog p.s --coverage cov.json -q",
        "netbpf cover report cov.json --missed",
        "netbpf cover html cov.json -o cov.html",
    ),
    "views": ("netbpf views trace.pcap --filter vlan or ip",),
    "debug": ("netbpf debug trace.pcap -n 37 --prog p.s",),
    "disasm": (
        "netbpf disasm flows.o:read_ip",
        "netbpf disasm -d --filter tcp port 443",
    ),
    "asm": (
        "netbpf asm p.s -o p.bin",
        "netbpf asm p.s --format c",
    ),
}
"""By command; the files are the reader's."""
