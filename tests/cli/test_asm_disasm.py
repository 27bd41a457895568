"""netbpf asm and netbpf disasm as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from netbpf.cli.main import main

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
