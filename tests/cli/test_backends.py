"""`netbpf replay --backend`: the same command on the simulator, on the running kernel, and on both at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.kernel import KERNEL_REASON
from support.vectors import ROOT

from netbpf.cli.main import main
from netbpf.packet.open import open_capture
from netbpf.replay import lab_session
from netbpf.replay.compare import LabRun

SESSION = str(ROOT / "pcaps" / "session.pcap")
COUNTING = str(ROOT / "scenarios" / "counting.s")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["replay", *words])
    out, err = capsys.readouterr()
    return code, out, err


def parts(out: str) -> list[str]:
    """Without the time it took, and with map entries in one order."""
    lines = [line for line in out.splitlines() if not line.startswith("engine")]
    return sorted(lines) if "map" in out else lines


@pytest.mark.kernel
@pytest.mark.skipif(bool(KERNEL_REASON), reason=KERNEL_REASON or "the kernel answers")
class TestKernel:
    def test_every_backend_prints_the_same(self, capsys: pytest.CaptureFixture[str]) -> None:
        answers = {b: run(capsys, SESSION, "--prog", COUNTING, "--backend", b) for b in ("sim", "kernel", "both")}
        assert [code for code, _, _ in answers.values()] == [0, 0, 0]
        assert parts(answers["sim"][1]) == parts(answers["kernel"][1])
        assert "simulator and kernel agree" in answers["both"][1]
        assert "TCP 305 UDP 198 packets" in answers["kernel"][1]

    def test_what_the_kernel_accepts_is_written(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        program, out = tmp_path / "keep.s", tmp_path / "out.pcap"
        program.write_text("r0 = 34\nexit\n")
        written = {}
        for backend in ("sim", "kernel"):
            vlan = str(ROOT / "pcaps" / "vlan.pcap")
            code, _, _ = run(capsys, vlan, "--prog", str(program), "-q", "-w", str(out), "--backend", backend)
            assert code == 0
            with open_capture(out) as reader:
                written[backend] = [r.data for r in reader]
        assert written["sim"] == written["kernel"]
        assert {len(d) for d in written["kernel"]} <= {34, 38}

    def test_json_tells_the_backend_and_no_difference(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = run(capsys, SESSION, "--prog", COUNTING, "--backend", "both", "--json")
        report = json.loads(out)
        assert (code, err) == (0, "")
        assert (report["backend"], report["difference"], report["packets"]) == ("both", None, 532)

    def test_cut_packets_are_said_to_be_padded(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = run(capsys, str(ROOT / "pcaps" / "cut.pcap"), "--prog", COUNTING, "--backend", "both")
        assert code == 0
        assert "zeros stand for the bytes" in err

    def test_a_program_both_refuse(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        bad = tmp_path / "bad.s"
        bad.write_text("r0 = r3\nexit\n")
        for backend in ("kernel", "both"):
            code, _, err = run(capsys, SESSION, "--prog", str(bad), "--backend", backend)
            assert code == 65
            assert "R3 !read_ok" in err

    def test_packets_without_ethernet_header(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = run(capsys, str(ROOT / "pcaps" / "raw-ip.pcap"), "--prog", COUNTING, "--backend", "kernel")
        assert code == 64
        assert "no TAP can receive them" in err


def fake_labs(monkeypatch: pytest.MonkeyPatch, spoil: Any) -> None:
    """Both hosts are the simulator; the second one's answers are spoilt."""

    class Other(LabRun):
        def __init__(self, host: Any, *args: Any, **named: Any) -> None:
            super().__init__("sim", *args, **named)
            self.is_second = host == "kernel"
            self.backend = str(host)

        def send(self, frames: Any) -> Any:
            packets = super().send(frames)
            return spoil(packets) if self.is_second else packets

    monkeypatch.setattr(lab_session, "LabRun", Other)


def test_the_first_packet_that_differs_is_told_with_its_frame(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "keep.s"
    program.write_text("r0 = 60\nexit\n")
    fake_labs(monkeypatch, lambda packets: [p._replace(received=()) if i >= 7 else p for i, p in enumerate(packets)])
    code, _, err = run(capsys, SESSION, "--prog", str(program), "--backend", "both", "-q")
    assert code == 1
    assert "first difference: packet 8: the verdict" in err
    assert "0000  02 00" in err
    code, out, err = run(capsys, SESSION, "--prog", str(program), "--backend", "both", "--json")
    told = json.loads(out)["difference"]
    assert (code, told["packet"], told["kind"], told["kernel"]) == (1, 8, "packet", "dropped")
    assert bytes.fromhex(told["frame"])[12:14] == b"\x08\0"


def test_without_privileges_one_line_says_so(tmp_path: Path) -> None:
    """In a child that has given up its capabilities."""
    if KERNEL_REASON == "needs root":
        code = "import sys\nfrom netbpf.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    else:
        code = (
            "import sys\nfrom netbpf.host.linux.caps import keep_only\nkeep_only(frozenset())\n"
            "from netbpf.cli.main import main\nsys.exit(main(sys.argv[1:]))"
        )
    words = ["replay", SESSION, "--prog", COUNTING, "--backend", "kernel"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 71
    assert done.stderr.count("\n") == 1
    assert "EPERM" in done.stderr
