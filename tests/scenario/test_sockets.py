"""Sockets that are no packet sockets: what a scenario sees of them, on the simulator and, where it may be, on the kernel."""

from __future__ import annotations

import pytest
from support.kernel import KERNEL_REASON

from netbpf.scenario.read import read_text
from netbpf.scenario.show import format_result
from netbpf.scenario.suite import FAILED, PASSED, SKIPPED, items_of, run_item

TCP = '''netbpf = 1
[socket]
kind = "tcp"
port = 80
[program]
asm = """
.map lens hash key=4 value=4 entries=64
    r6 = r1
    r1 = *(u32 *)(r6 + 0)
    *(u32 *)(r10 - 4) = r1
    *(u32 *)(r10 - 8) = 1
    r1 = map[lens]
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -8
    r4 = 0
    call bpf_map_update_elem
    r0 = VERDICT
    exit
"""
'''


def segment(data: int, flags: str = "PA", more: str = "") -> str:
    return f"[[packet]]\nscapy = \"Ether()/IP()/TCP(dport=80, flags='{flags}'{more})/Raw(b'x' * {data})\"\n"


def both(text: str) -> None:
    cases = read_text(text, "f.scenario.toml")
    for item in items_of(cases, "sim" if KERNEL_REASON else "both"):
        found = run_item(item)
        assert found.status == PASSED, format_result(found)


@pytest.mark.parametrize(
    ("verdict", "data", "said"),
    [
        (0, 10, "'drop'"),
        (1, 10, "'drop'"),  # the header stays, and no byte of data: nothing to read
        (25, 10, "25"),
        (25, 5, "'accept'"),
        (25, 3, "'accept'"),
        (30, 57, "'drop'"),  # 77 bytes cut: the checksum fails
        (30, 56, "30"),
        (-1, 1400, "'accept'"),
    ],
)
def test_tcp_data(verdict: int, data: int, said: str) -> None:
    seen = f"expect = {{ verdict = {said}, maps = {{ lens = {{ entries = {{ {20 + data} = 1 }} }} }} }}\n"
    both(TCP.replace("VERDICT", str(verdict)) + segment(data) + "repeat = 2\n" + seen)


def test_tcp_segments_of_all_kinds() -> None:
    """With options, without data, damaged, of another host, the last one."""
    steps = [
        (segment(4, more=", options=[('NOP', None), ('NOP', None), ('NOP', None), ('NOP', None)]"), "'accept'"),
        (segment(0, "A"), "'accept'"),
        (segment(4, more=", chksum=1"), "'unseen'"),
        (segment(4, more=", seq=77, ack=99"), "'accept'"),
        (segment(4).replace("IP()", "IP(src='10.0.0.3')"), "'unseen'"),
        (segment(4).replace("IP()", "IP(dst='10.0.0.9')"), "'unseen'"),
        (segment(4).replace("IP()/TCP", "IP()/UDP").replace(", flags='PA'", ""), "'unseen'"),
        (segment(4, "FPA"), "'accept'"),
    ]
    both(TCP.replace("VERDICT", "-1") + "".join(f"{step}expect = {said}\n" for step, said in steps))


@pytest.mark.parametrize("flags", ["FA", "R", "RA"])
@pytest.mark.parametrize("verdict", [0, -1])
def test_a_tcp_connection_ends_where_the_program_lets_it(flags: str, verdict: int) -> None:
    text = TCP.replace("VERDICT", str(verdict)) + segment(0, flags) + f"expect = '{'accept' if verdict else 'drop'}'\n"
    both(text)
    if not verdict:
        both(text + segment(4) + "expect = 'drop'\n")
        return
    (item,) = items_of(read_text(text + segment(4), "f.scenario.toml"))
    assert "the connection is at its end" in run_item(item).reason


UNIX = '''netbpf = 1
[socket]
kind = "unix"
[program]
asm = """
    r6 = r1
    r0 = *(u8 *)skb[0]
    exit
"""
'''


def test_unix_datagrams_of_every_length() -> None:
    steps = [("00ff", "'drop'"), ("01ff", "1"), ("02ff", "'accept'"), ("ff", "'accept'"), ("10" * 60, "16")]
    both(UNIX + "".join(f"[[packet]]\nhex = '{data}'\nexpect = {said}\n" for data, said in steps))


def test_a_failure_shows_the_datagram_and_the_path() -> None:
    (item,) = items_of(read_text(UNIX + "[[packet]]\nscapy = \"Raw(b'0abc')\"\nexpect = 2\n", "f.scenario.toml"))
    found = run_item(item)
    assert found.status == FAILED
    told = format_result(found)
    assert "expected: 2 bytes kept" in told
    assert "0000  30 61 62 63" in told
    assert "r0 = *(u8 *)skb[0]" in told


def test_a_tcp_failure_shows_the_path() -> None:
    (item,) = items_of(read_text(TCP.replace("VERDICT", "-1") + segment(5) + "expect = 'drop'\n", "f.scenario.toml"))
    told = format_result(run_item(item))
    assert "TCP 20 > 80" in told
    assert "lens[25]" in told


def test_a_cut_packet_is_no_segment() -> None:
    (item,) = items_of(read_text(TCP.replace("VERDICT", "-1") + segment(5) + "wirelen = 2000\n", "f.scenario.toml"))
    assert run_item(item).status == SKIPPED
