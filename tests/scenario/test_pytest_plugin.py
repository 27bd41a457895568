"""The pytest plugin, run by pytest inside pytest."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from support.kernel import KERNEL_REASON

pytest_plugins = ["pytester"]


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Each run inside this process forgets the modules that it imported: those that are there before it are imported once."""
    from netbpf.scenario.read import read_text
    from netbpf.scenario.show import format_result
    from netbpf.scenario.suite import items_of, run_item

    cases = read_text(STORY.replace('wanted = "accept"', 'wanted = "drop"'), "f.scenario.toml")
    for item in items_of(cases, "sim", "both"):
        format_result(run_item(item))


IS_INSTALLED = any(e.value == "netbpf.pytest_plugin" for e in entry_points(group="pytest11"))
LOADED = [] if IS_INSTALLED else ["-p", "netbpf.pytest_plugin"]

IP = "020000000001 020000000002 0800 45 00 0028 0001 0000 40 06 0000 0a000002 0a000001 "
TCP = IP + "0014 {port} 0000000000000000 5002 2000 0000 0000"
STORY = f'''# HTTPS only
netbpf = 1
title = "HTTPS only"
cases = [
  {{ id = "https", packet = "{TCP.format(port="01bb")}", wanted = "accept" }},
  {{ id = "http", packet = "{TCP.format(port="0050")}", wanted = "drop" }},  # not this
]

[program]
classic = """
ldh [36]
jne #443, drop
ret #-1
drop: ret #0
"""

[[packet]]
hex = "${{packet}}"
expect = "${{wanted}}"
'''


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*LOADED, "-p", "no:cacheprovider", "-p", "no:randomly", *args)


def story(pytester: pytest.Pytester, text: str = STORY, name: str = "web") -> Path:
    path = pytester.path / f"{name}.scenario.toml"
    path.write_text(text)
    return path


def test_an_item_a_case(pytester: pytest.Pytester) -> None:
    story(pytester)
    (pytester.path / "other.toml").write_text("this is not ours = [")
    found = run(pytester, "-v")
    found.stdout.fnmatch_lines(["web.scenario.toml::https-sim-interp PASSED*", "web.scenario.toml::http-sim-interp PASSED*"])
    found.assert_outcomes(passed=2)


def test_engines_and_backends(pytester: pytest.Pytester) -> None:
    story(pytester)
    found = run(pytester, "-v", "-rs", "--netbpf-engine=both", "--netbpf-backend=both")
    found.stdout.fnmatch_lines(["*::https-sim-interp PASSED*", "*::https-sim-native PASSED*", "*::https-kernel *"])
    if KERNEL_REASON:
        found.assert_outcomes(passed=4, skipped=2)
        found.stdout.fnmatch_lines(["SKIPPED*the kernel gives no laboratory here*"])
    else:
        found.assert_outcomes(passed=6)


def test_a_failure_points_at_the_line(pytester: pytest.Pytester) -> None:
    path = story(pytester, STORY.replace('wanted = "accept"', 'wanted = "drop"'))
    found = run(pytester)
    found.assert_outcomes(passed=1, failed=1)
    line = path.read_text()[: path.read_text().index("id = \"https\"")].count("\n") + 1
    found.stdout.fnmatch_lines(
        [
            f"web.scenario.toml:{line}: packet 1: verdict",
            "*expected: drop",
            "*got:      accept (54 bytes)",
            "*0000  02 00 00 00 00 01*",
            "*IPv4 10.0.0.2 > 10.0.0.1 TCP 20 > 443",
            "*TCP.dport at 36 = 443*",
            "FAILED web.scenario.toml::https-sim-interp*",
        ]
    )
    found.stdout.no_fnmatch_line("*Traceback*")


def test_a_file_that_is_wrong_is_a_collection_error_with_a_caret(pytester: pytest.Pytester) -> None:
    story(pytester, STORY.replace("[[packet]]", "[[packets]]"))
    found = run(pytester)
    found.stdout.fnmatch_lines(["*web.scenario.toml:17:3: a scenario has no key 'packets'; did you mean 'packet'?", "*^^^^^^^"])
    found.assert_outcomes(errors=1)


def test_update_rewrites_in_place(pytester: pytest.Pytester) -> None:
    wrong = STORY.replace('wanted = "accept"', 'wanted = "drop"').replace('wanted = "drop" }},  #', 'wanted = 14 }},  #')
    path = story(pytester, wrong)
    found = run(pytester, "--netbpf-update")
    found.assert_outcomes(passed=2)
    found.stdout.fnmatch_lines(["netbpf: rewritten: web.scenario.toml"])
    assert path.read_text() == STORY
    run(pytester).assert_outcomes(passed=2)


def test_update_needs_one_process_and_one_backend(pytester: pytest.Pytester) -> None:
    story(pytester)
    for args, message in ((("-n", "2"), "run it without -n"), (("--netbpf-backend=both",), "rewrites what one backend says")):
        found = run(pytester, "--netbpf-update", *args)
        assert found.ret == pytest.ExitCode.USAGE_ERROR
        found.stderr.fnmatch_lines([f"*{message}*"])


def test_with_xdist(pytester: pytest.Pytester) -> None:
    for i in range(2):
        story(pytester, STORY if i else STORY.replace("443", "444"), f"web{i}")
    found = pytester.runpytest_subprocess(*LOADED, "-p", "no:cacheprovider", "-n", "2", timeout=120)
    found.assert_outcomes(passed=3, failed=1)
    found.stdout.fnmatch_lines(["*web0.scenario.toml:*: packet 1: verdict"])


def test_keywords_and_single_items(pytester: pytest.Pytester) -> None:
    story(pytester)
    run(pytester, "-k", "http-", "web.scenario.toml::http-sim-interp").assert_outcomes(passed=1)


def test_fixtures(pytester: pytest.Pytester) -> None:
    capture = Path(__file__).parents[2] / "pcaps" / "session.pcap"
    pytester.makepyfile(
        test_it='''
        from pathlib import Path
        import struct

        FRAME = bytes.fromhex("FRAME_HEX")
        COUNT = """
        .map seen array key=4 value=8 entries=1
            *(u32 *)(r10 - 4) = 0
            r2 = r10
            r2 += -4
            r1 = map[seen]
            call bpf_map_lookup_elem
            if r0 == 0 goto out
            r1 = 1
            lock *(u64 *)(r0 + 0) += r1
        out:
            r0 = 20
            exit
        """

        def test_host(bpf_host):
            bpf_host.machine.env.set_time(5)
            assert bpf_host.map_ids() == []

        def test_load(load_program, bpf_host):
            program = load_program(COUNT)
            assert program.run(FRAME) == 20
            assert program.run(FRAME) == 20
            assert program.lookup("seen", bytes(4)) == struct.pack("<Q", 2)
            assert program.items("seen") == {bytes(4): struct.pack("<Q", 2)}
            assert len(bpf_host.prog_ids()) == 1

        def test_load_a_filter(load_program):
            program = load_program("ldh [36]\\njne #443, drop\\nret #-1\\ndrop: ret #0\\n", view="socket")
            assert program.run(FRAME) == len(FRAME)

        def test_fields(load_program):
            program = load_program("r0 = *(u32 *)(r1 + 8)\\nexit\\n")
            assert program.run(FRAME, mark=7) == 7

        def test_replay(replay):
            found = replay(COUNT, "CAPTURE", limit=100)
            assert found.totals.packets == found.totals.accepted == found.totals.trimmed == 100
            assert found.maps["seen"] == {bytes(4): struct.pack("<Q", 100)}
        '''.replace("FRAME_HEX", TCP.format(port="01bb")).replace("CAPTURE", str(capture))
    )
    run(pytester).assert_outcomes(passed=5)


def test_start_up_costs_next_to_nothing() -> None:
    """Without a scenario, none of netbpf's rooms is imported."""
    code = "import sys, pytest, netbpf.pytest_plugin; print([m for m in sys.modules if m.startswith('netbpf.')])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert told.strip() == "['netbpf.pytest_plugin']"
