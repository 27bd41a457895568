"""`netbpf attach` as a user meets it: both ways of being attached, every backend, faults, signals, and what is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from support.kernel import KERNEL_REASON
from support.vectors import ROOT

from netbpf.cli.main import main
from netbpf.engine.choose import native_obstacle
from netbpf.packet.open import open_capture

SESSION = str(ROOT / "pcaps" / "session.pcap")
VLAN = str(ROOT / "pcaps" / "vlan.pcap")
COUNTING = str(ROOT / "scenarios" / "counting.s")
COUNTS = ["key: 06 00 00 00  value: 31 01 00 00 00 00 00 00", "key: 11 00 00 00  value: c6 00 00 00 00 00 00 00"]
WAYS = {"ring": [], "in-line": ["--in-line", "--forward", "tap:nbt1"], "both": ["--backend", "both"]}
_numbers = count()


@pytest.fixture
def ns() -> Iterator[str]:
    """A name of a namespace that nobody has, and that nobody has afterwards either."""
    name = f"netbpf-{os.getpid()}-{next(_numbers)}"
    yield name
    left = os.path.exists(f"/run/netns/{name}")
    if left:
        subprocess.run(["ip", "netns", "del", name], check=False)
    assert not left, f"namespace {name} was left behind"


@pytest.fixture
def keep_60(tmp_path: Path) -> str:
    path = tmp_path / "keep.s"
    path.write_text("r0 = 60\nexit\n")
    return str(path)


def attach(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "netbpf", "attach", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "netbpf", "attach", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def until(process: subprocess.Popen[str], words: str) -> str:
    """Lines of stderr up to one with ``words`` in it."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"never said {words!r}: {seen}")


def until_counted(process: subprocess.Popen[str]) -> str:
    """Lines of stdout up to one that tells of all fed frames; the command was given a short interval."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if "532 packets" in line:
            return seen
    raise AssertionError(f"never counted all: {seen}")


# --- words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x"], "which program?"),
        (["x", "--prog", COUNTING, "-c", "0"], "a count of packets is at least 1"),
        (["x", "--prog", COUNTING, "--interval", "0"], "at least 0.01"),
        (["x", "--prog", COUNTING, "--duration", "-1"], "more than 0"),
        (["x", "--prog", COUNTING, "--in-line", "--forward", "y"], "needs --tap"),
        (["x", "--prog", COUNTING, "--tap", "--in-line"], "say where with --forward"),
        (["x", "--prog", COUNTING, "--forward", "y"], "belongs to --in-line"),
        (["x", "--prog", COUNTING, "--feed", SESSION], "needs --tap"),
        (["x", "--prog", COUNTING, "--view", "file"], "live packets come to a socket"),
    ],
)
def test_wrong_words(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["attach", *words]) == 64
    assert message in capsys.readouterr().err


def test_the_help_says_what_the_two_ways_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attach", "--help"]) == 0
    told = capsys.readouterr().out
    assert "listening (the default)" in told
    assert "in line (--in-line" in told
    assert "CAP_NET_ADMIN" in told


def test_a_missing_device_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attach", "netbpf-none", "--prog", COUNTING]) == 71
    err = capsys.readouterr().err
    assert "there is no device 'netbpf-none' here (there are: " in err
    assert err.count("\n") == 1


def test_missing_privileges_are_one_line() -> None:
    drop = "from netbpf.host.linux.caps import keep_only\nkeep_only(frozenset())\n" if os.geteuid() == 0 else ""
    code = f"import sys\n{drop}from netbpf.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    for words in (["lo"], ["lo", "--backend", "kernel"], ["nbx0", "--tap"], ["nbx0", "--tap", "--netns", "netbpf-none"]):
        command = [sys.executable, "-c", code, "attach", *words, "--prog", COUNTING, "--duration", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert done.returncode == 71, done.stderr
        assert "CAP_NET_RAW" in done.stderr
        assert done.stderr.count("\n") == 1


# --- on the running kernel --------------------------------------------------------------------------------------------------

kernel = pytest.mark.skipif(bool(KERNEL_REASON), reason=KERNEL_REASON or "the kernel answers")


@pytest.mark.kernel
@kernel
class TestLive:
    @pytest.mark.parametrize("options", [[], ["--engine", "interp"], ["--backend", "both"]])
    def test_listening_counts_as_the_manual_page_does(self, ns: str, options: list[str]) -> None:
        done = attach("nbt0", "--tap", "--netns", ns, "--prog", COUNTING, "--feed", SESSION, *options)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert set(COUNTS) < set(lines)
        assert "532 packets" in done.stdout
        assert ("simulator and kernel agree: every packet and every map entry" in lines) == ("both" in options)
        native = not options and not native_obstacle()
        assert ("a ring of 16 MiB" in done.stderr) == native
        assert ("recv() on a packet socket" in done.stderr) != native

    @pytest.mark.parametrize("backend", ["sim", "kernel", "both"])
    def test_in_line_passes_on_what_is_accepted(self, ns: str, backend: str, keep_60: str, tmp_path: Path) -> None:
        out, again = tmp_path / "out.pcap", tmp_path / "w.pcapng"
        words = ["--tap", "--in-line", "--netns", ns, "--prog", keep_60, "--feed", VLAN, "--backend", backend, "-q"]
        done = attach("nbt0", *words, "--forward", str(out), "-w", str(again))
        assert done.returncode == 0, done.stderr
        with open_capture(VLAN) as reader:
            fed = [r.data for r in reader]
        for path in (out, again):
            with open_capture(path) as reader:
                passed = [r.data for r in reader]
            assert passed == [f[: 64 if f[12:14] in (b"\x81\0", b"\x88\xa8") else 60] for f in fed]

    def test_in_line_counts_as_the_manual_page_does(self, ns: str) -> None:
        words = ["--tap", "--in-line", "--netns", ns, "--prog", COUNTING, "--feed", SESSION, "-q", "--forward", "tap:nbt1"]
        done = attach("nbt0", *words, "--backend", "both")
        assert done.returncode == 0, done.stderr
        assert {*COUNTS, "simulator and kernel agree: every packet and every map entry"} < set(done.stdout.splitlines())

    def test_in_line_to_a_second_tap_and_a_veth(self, ns: str, keep_60: str, tmp_path: Path) -> None:
        """What comes in at the second TAP, and at the veth's far end, is seen there by another netbpf."""
        subprocess.run(["ip", "netns", "add", ns], check=True)
        quiet = [f"net.ipv6.conf.{scope}.disable_ipv6=1" for scope in ("all", "default")]
        try:
            subprocess.run(["ip", "netns", "exec", ns, "sysctl", "-qw", *quiet], check=True)
            subprocess.run(["ip", "-n", ns, "link", "add", "nbv0", "type", "veth", "peer", "nbv1"], check=True)
            for end in ("nbv0", "nbv1"):
                subprocess.run(["ip", "-n", ns, "link", "set", end, "up"], check=True)
            seen = start("nbv1", "--netns", ns, "--prog", COUNTING, "-c", "532", "--duration", "20", "-q")
            until(seen, "listening")
            words = ["--tap", "--in-line", "--netns", ns, "--prog", keep_60, "--feed", SESSION, "-q"]
            assert attach("nbt0", *words, "--forward", "nbv0").returncode == 0
            out, _ = seen.communicate(timeout=30)
            assert COUNTS[0] in out
            assert os.path.exists(f"/run/netns/{ns}")  # was there before: stays
        finally:
            subprocess.run(["ip", "netns", "del", ns], check=True)

    def test_what_is_written_listening(self, ns: str, keep_60: str, tmp_path: Path) -> None:
        written = {}
        for name, options in {"ring": [], "recv": ["--engine", "interp"], "kernel": ["--backend", "kernel"]}.items():
            out = tmp_path / f"{name}.pcap"
            done = attach("nbt0", "--tap", "--netns", ns, "--prog", keep_60, "--feed", VLAN, "-q", "-w", str(out), *options)
            assert done.returncode == 0, done.stderr
            with open_capture(out) as reader:
                written[name] = [(r.data, r.wirelen) for r in reader]
        assert written["ring"] == written["recv"] == written["kernel"]
        assert {len(d) for d, _ in written["ring"]} >= {64}

    def test_an_expression_is_compiled_for_the_device(self, ns: str) -> None:
        """`vlan` finds the tag beside the packet, as with tcpdump -i."""
        with open_capture(VLAN) as reader:
            tagged = sum(r.data[12:14] in (b"\x81\0", b"\x88\xa8") for r in reader)
        for options in ([], ["--backend", "kernel"]):
            words = ["--tap", "--netns", ns, "--feed", VLAN, "--json", "--interval", "30", *options]
            done = attach("nbt0", *words, "--filter", "vlan")
            assert json.loads(done.stdout.splitlines()[-1])["accepted"] == tagged > 0, done.stderr
        done = attach("nbt0", "--tap", "--netns", ns, "--filter", "prot 17")
        assert done.returncode == 65
        assert "syntax error" in done.stderr

    def test_a_count_a_duration_and_json(self, ns: str) -> None:
        words = ["--tap", "--netns", ns, "--prog", COUNTING]
        done = attach("nbt0", *words, "--feed", SESSION, "-c", "100", "--json", "--interval", "0.2")
        assert done.returncode == 0
        last = json.loads(done.stdout.splitlines()[-1])
        assert (last["final"], last["packets"], last["kernel_drops"]) == (True, 100, 0)
        assert last["maps"]["counts"]
        before = time.monotonic()
        done = attach("nbt0", *words, "--duration", "0.7", "--interval", "0.3")
        assert done.returncode == 0
        assert 0.7 < time.monotonic() - before < 15
        assert re.match(r"0\.3\d\d s  0 packets \(0/s\)  0 accepted  0 dropped", done.stdout)

    def test_a_device_that_is_there_already(self, ns: str) -> None:
        done = attach("lo", "--tap", "--netns", ns, "--prog", COUNTING)
        assert done.returncode == 71
        assert "there is a device 'lo' already" in done.stderr
        done = attach("nbt0", "--netns", ns, "--prog", COUNTING)
        assert done.returncode == 71
        assert f"no network namespace '{ns}'" in done.stderr

    @pytest.mark.parametrize("options", [[], ["--backend", "kernel"], ["--backend", "both"]])
    def test_the_device_is_removed_while_attached(self, ns: str, options: list[str]) -> None:
        words = ["--tap", "--netns", ns, "--prog", COUNTING, "--feed", SESSION, "--duration", "30", "--interval", "0.1"]
        running = start("nbt0", *words, *options)
        until(running, "listening")
        until_counted(running)
        subprocess.run(["ip", "-n", ns, "link", "del", "nbt0"], check=True)
        out, err = running.communicate(timeout=20)
        assert running.returncode == 71
        assert "nbt0 went away or down" in err
        assert err.count("\n") == 1
        assert set(COUNTS) < set(out.splitlines())

    def test_the_device_is_removed_in_line(self, ns: str, keep_60: str, tmp_path: Path) -> None:
        words = ["--tap", "--in-line", "--netns", ns, "--prog", keep_60, "--duration", "30"]
        running = start("nbt0", *words, "--forward", str(tmp_path / "o.pcap"))
        until(running, "in line")
        subprocess.run(["ip", "-n", ns, "link", "del", "nbt0"], check=True)
        out, err = running.communicate(timeout=20)
        assert running.returncode == 71
        assert "went away" in err
        assert "0 packets" in out

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
    def test_a_signal_while_running(self, ns: str, number: int, way: list[str]) -> None:
        words = ["--tap", "--netns", ns, "--prog", COUNTING, "--feed", SESSION, "--duration", "30", "--interval", "0.1"]
        running = start("nbt0", *words, *way)
        until_counted(running)
        running.send_signal(number)
        out, err = running.communicate(timeout=20)
        assert running.returncode == 128 + number
        assert set(COUNTS) < set(out.splitlines())
        assert "Traceback" not in out + err

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_at_any_moment_leaves_nothing(self, ns: str, number: int) -> None:
        """While it starts, while it works, twice in a row."""
        for delay in (0.15, 0.3, 0.45, 0.7):
            running = start("nbt0", "--tap", "--netns", ns, "--prog", COUNTING, "--feed", SESSION, "--duration", "30")
            time.sleep(delay)
            running.send_signal(number)
            time.sleep(0.02)
            running.send_signal(number)
            out, err = running.communicate(timeout=20)
            if "Fatal Python error" not in err:  # the interpreter itself was still starting
                assert running.returncode in (128 + number, -number), err
            assert not os.path.exists(f"/run/netns/{ns}"), delay
            if "netbpf: " in err and "listening" in err:
                assert running.returncode == 128 + number
                assert "packets" in out

    def test_a_program_that_is_refused_makes_nothing(self, ns: str, tmp_path: Path) -> None:
        bad = tmp_path / "bad.s"
        bad.write_text("r0 = r3\nexit\n")
        for backend in ("sim", "both"):
            done = attach("nbt0", "--tap", "--netns", ns, "--prog", str(bad), "--backend", backend)
            assert done.returncode == 65
            assert "R3 !read_ok" in done.stderr
            assert not os.path.exists(f"/run/netns/{ns}")
