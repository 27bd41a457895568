"""netbpf asm and netbpf disasm as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netbpf.cli.main import main
from netbpf.sources.expr import find_libpcap

COUNTING = str(Path(__file__).parents[2] / "scenarios" / "counting.s")


def test_assemble_and_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "counting.bin"
    assert main(["asm", COUNTING, "-o", str(out)]) == 0
    assert "counts" in capsys.readouterr().err
    assert len(out.read_bytes()) == 13 * 8
    assert main(["disasm", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["   0: (bf) r6 = r1", "   1: (30) r0 = *(u8 *)skb[23]"]
    assert lines[-1] == "  12: (95) exit"


def test_styles(capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        "xlated": "   5: (18) r1 = map[counts]",
        "log": "5: (18) r1 = map[counts]",
        "asm": "    r1 = map[counts]",
        "c": "{ .code = 0x18, .dst_reg = 1, .src_reg = 5, .off = 0, .imm = 0 }, /* 5: (18) r1 = 0x0 */",
        "hex": "1851000000000000",
    }
    for style, line in expected.items():
        assert main(["disasm", "--style", style, COUNTING]) == 0
        assert line in capsys.readouterr().out.splitlines()


def test_opcodes_are_bpftools(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disasm", "--opcodes", COUNTING]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("   5: (18) r1 = map[counts]") + 1] == "       18 51 00 00 00 00 00 00 00 00 00 00 00 00 00 00"


def test_asm_text_assembles_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["disasm", "--style", "asm", COUNTING])
    again = tmp_path / "again.s"
    again.write_text(capsys.readouterr().out)
    outputs = []
    for path in (COUNTING, str(again)):
        main(["asm", "--format", "hex", path])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_wrong_text_exits_65_with_a_caret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.s"
    bad.write_text("r0 = 0\neixt\n")
    assert main(["asm", str(bad)]) == 65
    err = capsys.readouterr().err
    assert f"{bad}:2:1: 'eixt' begins no instruction; did you mean 'exit'?" in err
    assert err.endswith("  eixt\n  ^^^^\n")


def test_wrong_options_exit_64(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disasm", "--style", "roff", COUNTING]) == 64
    assert "roff" in capsys.readouterr().err


IP = "4\n40 0 0 12\n21 0 1 2048\n6 0 0 262144\n6 0 0 0\n"


def test_classic_filters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ip.ddd"
    path.write_text(IP)
    expected = {
        "-ddd": IP,
        "-dd": "{ 0x28, 0, 0, 0x0000000c },\n{ 0x15, 0, 1, 0x00000800 },\n"
        "{ 0x6, 0, 0, 0x00040000 },\n{ 0x6, 0, 0, 0x00000000 },\n",
        "-d": "(000) ldh      [12]\n(001) jeq      #0x800           jt 2\tjf 3\n(002) ret      #262144\n(003) ret      #0\n",
        "--style=log": "0: (b4) w0 = 0\n1: (b4) w7 = 0\n2: (bf) r6 = r1\n; (000) ldh      [12]\n3: (28) r0 = *(u16 *)skb[12]\n"
        "; (001) jeq      #0x800           jt 2\tjf 3\n4: (56) if w0 != 0x800 goto pc+2\n"
        "; (002) ret      #262144\n5: (b4) w0 = 262144\n6: (95) exit\n; (003) ret      #0\n7: (b4) w0 = 0\n8: (95) exit\n",
    }
    for option, text in expected.items():
        assert main(["disasm", option, str(path)]) == 0
        assert capsys.readouterr().out == text


def test_an_ebpf_program_has_no_classic_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disasm", "-d", COUNTING]) == 64
    assert "prints classic filters" in capsys.readouterr().err


@pytest.mark.skipif(find_libpcap() is None, reason="no libpcap here")
def test_expressions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disasm", "-ddd", "--filter", "ip"]) == 0
    assert capsys.readouterr().out == IP
    assert main(["disasm", "-d", "-y", "RAW", "--filter", "ip"]) == 0
    assert capsys.readouterr().out.startswith("(000) ldb      [0]\n")
    assert main(["disasm", "--filter", "ip"]) == 0
    assert capsys.readouterr().out.splitlines()[4] == "   3: (28) r0 = *(u16 *)skb[12]"
    assert main(["disasm", "-d", "--filter", "ip6 protochain 6"]) == 0
    assert main(["disasm", "--filter", "ip6 protochain 6"]) == 65
    assert main(["disasm", "--filter", "ip and"]) == 65
    assert "syntax error" in capsys.readouterr().err


def test_a_program_or_an_expression(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disasm"]) == 64
    assert main(["disasm", COUNTING, "--filter", "ip"]) == 64
    err = capsys.readouterr().err
    assert "disasm takes programs, or --filter EXPR" in err
    assert "a program or --filter EXPR, not both" in err


@pytest.mark.parametrize("capture", ["arp-icmp", "vlan", "qinq", "ipv6-extensions", "fragments"])
@pytest.mark.parametrize("text", ["ld poff\nadd #1", "ldx #0x11\nld #14\nld nla\nadd #5", "ld hatype\nadd #30"])
def test_a_filter_with_ancillary_loads_verifies_and_replays(
    capture: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answers.cbpf"
    path.write_text(f"{text}\nret a\n")
    assert main(["verify", "--log-level", "0", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: accepted\n"
    kept = []
    for engine in ("interp", "native"):
        out = tmp_path / f"{engine}.pcap"
        options = ["--json", "--engine", engine, "--prog", str(path), "-w", str(out)]
        assert main(["replay", str(Path(COUNTING).parents[1] / "pcaps" / f"{capture}.pcap"), *options]) == 0
        assert json.loads(capsys.readouterr().out)["accepted"] > 0
        kept.append(out.read_bytes())
    assert kept[0] == kept[1]
