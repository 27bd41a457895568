"""The stand-in for libpcap's filtertest, called as its TESTrun calls it: what it prints is what libpcap says."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support.libpcap import needs_libpcap, verdicts
from support.tcpdump import needs_tcpdump
from support.vectors import ROOT, vectors_dir

from netbpf.sources import expr
from netbpf.sources.cbpf import format_d

sys.path.insert(0, str(ROOT / "scripts"))
import filtertest

FILTERTEST = ROOT / "scripts" / "filtertest"
PCAPS = ROOT / "pcaps"
pytestmark = needs_libpcap


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = filtertest.main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def test_help_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "-h")
    assert (code, err) == (0, "")
    assert out.startswith("filtertest, with libpcap version")
    assert run(capsys)[0] == 64


@needs_tcpdump
@pytest.mark.parametrize(("ours", "theirs"), [((), "-d"), (("-d",), "-dd"), (("-dd",), "-ddd"), (("-d", "-d"), "-ddd")])
@pytest.mark.parametrize("optimize", [True, False])
def test_it_prints_what_tcpdump_prints(
    ours: tuple[str, ...], theirs: str, optimize: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("tcp port 80", "vlan and ip6", "ip[0] & 0xf > 5 or arp", "ip6 protochain 6"):
        file = tmp_path / "filter.txt"
        file.write_text(f"{text} # a comment\n")
        flags = [] if optimize else ["-O"]
        wanted = subprocess.run(["tcpdump", *flags, theirs, "-y", "EN10MB", text], capture_output=True, text=True)
        if wanted.returncode:
            pytest.skip(f"tcpdump compiles nothing here: {wanted.stderr}")
        theirs_text = "".join(f"{line.rstrip()}\n" for line in wanted.stdout.splitlines())  # blanks end lines before libpcap 1.11
        assert run(capsys, *flags, *ours, "-F", str(file), "EN10MB") == (0, theirs_text, "")
        assert run(capsys, *flags, *ours, "EN10MB", *text.split()) == (0, theirs_text, "")


def test_options_reach_the_compiler(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ret      #96\n" in run(capsys, "-s", "96", "EN10MB", "ip")[1]
    assert "ret      #200\n" in run(capsys, "-s200", "12", "greater", "100")[1]
    assert "0xa0000ff" in run(capsys, "-m", "255.255.255.0", "EN10MB", "ip broadcast and dst 10.0.0.255")[1]
    assert run(capsys, "-q", "EN10MB", "ip") == (0, "", "")
    plain, swapped, unswapped = (run(capsys, *f, "NULL", "ip")[1] for f in ((), ("-S", "swapped"), ("-S", "unswapped")))
    assert plain.splitlines()[1].split()[2] in unswapped  # libpcap from 1.11 on looks for the other byte order too
    assert swapped != unswapped
    assert run(capsys, "-l", "EN10MB", "ip") == run(capsys, "EN10MB", "ip")
    assert run(capsys, "-s", "0x10", "EN10MB") == run(capsys, "-s", " 020", "EN10MB") == (0, "(000) ret      #16\n", "")


def test_linux_extensions_are_those_of_a_live_socket(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "-l", "EN10MB", "vlan 5")
    assert (code, err) == (0, "")
    assert out.startswith("(000) ldb      [vlanp]\n(001) jeq      #0x1 ")
    assert "[vlan_tci]\n" in out
    assert run(capsys, "-l", "EN10MB", "ifindex 2")[1].startswith("(000) ld       [ifidx]\n(001) jeq      #0x2 ")
    assert run(capsys, "-l", "-S", "swapped", "EN10MB", "vlan 5")[1] == out


def test_no_blanks_end_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "EN10MB", "ip[2:2] - ((ip[0] & 0xf) << 2) > 40")[1]
    assert "(007) tax\n" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["EN10MB", "ip", "host", "1.2.3.4.5"], 65, "filtertest: "),
        (["EN10MB", "tcp", "prot", "80"], 65, "filtertest: can't parse filter expression: syntax error"),
        (["EN10MB", "ip broadcast"], 65, "filtertest: netmask not known, so 'ip broadcast' not supported"),
        (["SOMETHING", "ip"], 64, "filtertest: invalid data link type SOMETHING"),
        (["-s", "x", "EN10MB"], 64, "filtertest: invalid snaplen x"),
        (["-m", "1.2.3", "EN10MB"], 64, "filtertest: invalid netmask 1.2.3"),
        (["-S", "x", "EN10MB"], 64, 'filtertest: invalid -S value "x"'),
        (["-q", "-d", "EN10MB"], 64, "filtertest: -d is not compatible with -q"),
        (["-l", "-r", "x"], 64, "filtertest: -r is not compatible with -l"),
        (["-r", "/nowhere", "ip"], 66, "filtertest: Failed opening: /nowhere: No such file or directory"),
        (["-F", "/nowhere", "EN10MB"], 74, "filtertest: can't open /nowhere: No such file or directory"),
        (["+-5", "ip"], 64, "filtertest: invalid data link type +-5"),
        (["\u00b2", "ip"], 64, "filtertest: invalid data link type \u00b2"),
        (["-s", "1_0", "EN10MB"], 64, "filtertest: invalid snaplen 1_0"),
        (["-s", "08", "EN10MB"], 64, "filtertest: invalid snaplen 08"),
        (["-i", "x", "-q", "-d"], 64, "filtertest: -d is not compatible with -q"),
        (["-x"], 64, "filtertest, with libpcap"),
        (["-F"], 64, "filtertest, with libpcap"),
    ],
)
def test_exit_codes_and_messages(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    got, out, err = run(capsys, *words)
    assert (got, out) == (code, "")
    assert err.startswith(message)


TEXTS = [
    "ip",
    "arp",
    "ip6",
    "tcp dst port 80",
    "ip6 protochain 17",
    "ip protochain 51",
    "link[0] != 0",
    "greater 100",
    "broadcast",
]


def applied(capture: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, optimize: bool) -> int:
    """How many verdicts of the stand-in on a file are libpcap's, number by number."""
    theirs, compared = verdicts(capture, TEXTS, optimize=optimize), 0
    if theirs is None:
        assert run(capsys, "-r", str(capture), "ip")[0] == 66
        return 0
    for text, answer in theirs.items():
        file = tmp_path / "filter.txt"
        file.write_text(text)
        code, out, err = run(capsys, *([] if optimize else ["-O"]), "-F", str(file), "-r", str(capture))
        if isinstance(answer, str):
            assert (code, out, err) == (65, "", f"filtertest: {answer}\n")
            continue
        damage = expr.damage_of(str(capture))
        assert (code, err) == ((74, f"filtertest: pcap_next_ex() failed: {damage}\n") if damage else (0, "")), capture.name
        assert [int(line) for line in out.splitlines()] == answer, (capture.name, text)
        compared += len(answer)
    return compared


@pytest.mark.parametrize("optimize", [True, False])
def test_verdicts_on_shipped_captures_are_libpcaps(optimize: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["vlan.pcap", "cooked2.pcap", "raw-ip.pcap", "loop.pcap", "ipv6-extensions.pcap", "damaged.pcap", "big-endian.pcap"]
    assert sum(applied(PCAPS / name, capsys, tmp_path, optimize) for name in names) > 200


@pytest.mark.vectors
def test_verdicts_on_tcpdumps_captures_are_libpcaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captures = sorted(p for p in (vectors_dir() / "pcaps").iterdir() if p.is_file())[::6]
    assert sum(applied(capture, capsys, tmp_path, True) for capture in captures) > 2000


def cbpf_savefile(insns: list[tuple[int, int, int, int]]) -> bytes:
    header = b"\xa1\xb2\xc3\xcbcBPF\x01".ljust(18, b"\0") + struct.pack(">H", len(insns))
    return header + b"".join(struct.pack(">HBBI", *insn) for insn in insns)


def test_a_compiled_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "filter.cbpf"
    insns = expr.compile_expression("vlan")
    path.write_bytes(cbpf_savefile([tuple(i) for i in insns]))
    assert run(capsys, "-i", str(path)) == (0, format_d(insns), "")
    assert run(capsys, "-i", str(path), "-r", str(PCAPS / "vlan.pcap")) == run(capsys, "-r", str(PCAPS / "vlan.pcap"), "vlan")
    path.write_bytes(cbpf_savefile([(0x06, 0, 0, 1), (0x28, 0, 0, 12)]))
    assert run(capsys, "-i", str(path)) == (65, "", "filtertest: Filter doesn't pass validation\n")
    on_file = ("-r", str(PCAPS / "vlan.pcap"))  # where nothing is validated
    assert run(capsys, "-i", str(path), *on_file) == (0, run(capsys, *on_file, "")[1].replace("262144", "1"), "")
    invalid = [(0x28, 0, 0, 12), (0x15, 0, 1, 0x8100), (0x06, 0, 0, 5), (0xFFFF, 0, 0, 0), (0x15, 200, 0, 0)]
    path.write_bytes(cbpf_savefile(invalid))
    assert set(run(capsys, "-i", str(path), *on_file)[1].split()) == {"0", "5"}
    path.write_bytes(cbpf_savefile([]))
    assert set(run(capsys, "-i", str(path), *on_file)[1].split()) == {"0"}
    path.write_bytes(b"cbpf")
    assert run(capsys, "-i", str(path))[0] == 74


def test_it_starts_fast() -> None:
    """TESTrun gives a case one second; processor time, as a busy machine makes everything late."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = [FILTERTEST, "-r", str(PCAPS / "vlan.pcap"), "ip6 protochain 6"]
        assert subprocess.run(words, capture_output=True, timeout=60).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(5)) < 0.25
