"""--prog, --filter and --view, alike in every command that takes a program."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.libpcap import needs_libpcap
from support.vectors import ROOT

from netbpf.cli.main import main
from netbpf.sources import expr

SESSION = str(ROOT / "pcaps" / "session.pcap")
VLAN = str(ROOT / "pcaps" / "vlan.pcap")
pytestmark = needs_libpcap


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


def accepted(capsys: pytest.CaptureFixture[str], *words: str) -> int:
    code, out, err = run(capsys, "replay", *words, "-q")
    assert (code, err) == (0, "")
    return int(out.splitlines()[1].split()[0])


def test_a_filter_is_words_up_to_the_next_option(capsys: pytest.CaptureFixture[str]) -> None:
    whole = accepted(capsys, SESSION, "--filter", "tcp port 443")
    assert whole == accepted(capsys, SESSION, "--filter", "tcp", "port", "443") == 322 - 0
    assert accepted(capsys, SESSION, "--filter", "tcp", "port", "443", "-c", "10") < 10
    assert accepted(capsys, SESSION, "-O", "--filter", "tcp", "port", "443") == whole
    assert accepted(capsys, SESSION, "--filter") == 532


def test_views_of_tagged_packets_differ(capsys: pytest.CaptureFixture[str]) -> None:
    in_file = accepted(capsys, VLAN, "--filter", "vlan")
    assert in_file == accepted(capsys, VLAN, "--view", "file", "--filter", "vlan") > 0
    assert accepted(capsys, VLAN, "--view", "socket", "--filter", "vlan") == 0


def test_a_classic_file_is_read_in_the_view_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filter_file = tmp_path / "vlan.ddd"
    assert main(["disasm", "-ddd", "--filter", "vlan"]) == 0
    filter_file.write_text(capsys.readouterr().out)
    assert accepted(capsys, VLAN, "--prog", str(filter_file)) == 0
    assert accepted(capsys, VLAN, "--prog", str(filter_file), "--view", "file") > 0
    loop = tmp_path / "loop.ddd"
    loop.write_text("4\n5 0 0 1\n6 0 0 1\n5 0 0 4294967294\n6 0 0 0\n")  # ja -2: libpcap takes it, the kernel does not
    assert run(capsys, "verify", str(loop))[0] == 65
    assert run(capsys, "verify", str(loop), "--view", "file")[0] == 0


def test_commands_without_a_capture_take_a_link_type(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["disasm", "-d"], ["verify"], ["asm", "--format", "c"]):
        code, out, _ = run(capsys, *command, "-y", "RAW", "--filter", "ip", "proto", "6")
        assert code == 0
        assert out
    assert "ldb      [9]" in run(capsys, "disasm", "-d", "-y", "RAW", "--filter", "ip", "proto", "6")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["replay", SESSION], "which program? --prog FILE, or --filter EXPR"),
        (["replay", SESSION, "--prog", "x.s", "--filter", "ip"], "a program or --filter EXPR, not both"),
        (["verify"], "verify takes programs, or --filter EXPR"),
        (["asm"], "asm takes a program, or --filter EXPR"),
        (["disasm", "--filter", "ip", "-y", "ETHER"], "libpcap knows no data link type 'ETHER'"),
    ],
)
def test_what_is_asked_wrongly(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (64, "")
    assert message in err


def test_a_bad_expression_has_libpcaps_words(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "replay", SESSION, "--filter", "tcp", "prot", "443")
    assert (code, err) == (65, "netbpf: <expression>: can't parse filter expression: syntax error\n")


def test_without_libpcap_there_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(expr, "find_libpcap", lambda: None)
    code, out, err = run(capsys, "replay", SESSION, "--filter", "tcp")
    assert (code, out, err.count("\n")) == (64, "", 1)
    assert "apt install libpcap0.8" in err


def test_captures_that_do_not_open_are_told_and_the_rest_is_filtered(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = tmp_path / "text.pcap"
    text.write_text("no capture at all")
    code, out, err = run(capsys, "replay", str(text), SESSION, "-q", "--filter", "tcp")
    assert code == 66
    assert "unknown file format" in err
    assert "532 packets" in out
