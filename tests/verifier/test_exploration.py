"""The walk over all paths: its log word for word, its counts, its loops, and the same counts with and without a log."""

from __future__ import annotations

import errno
import random
import sys
from pathlib import Path

import pytest
from support.verdicts import HASH, PRIVILEGES, judge, reason

from netbpf.isa.instruction import decode
from netbpf.maps.spec import MapSpec
from netbpf.sources.asm import parse
from netbpf.verifier.check import verify
from netbpf.verifier.env import LoadRequest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from verifier_programs import generate
from verifier_records import load_request

ROOT = Path(__file__).resolve().parents[2]

# what Linux 6.18 prints at level 2 for the counting example of the bpf(2) manual page, with our map's address
COUNTING_LOG = """\
func#0 @0
Live regs before insn:
      0: 012345.789 (bf) r6 = r1
      1: 0123456789 (30) r0 = *(u8 *)skb[23]
      2: 0......... (63) *(u32 *)(r10 -4) = r0
      3: .......... (bf) r2 = r10
      4: ..2....... (07) r2 += -4
      5: ..2....... (18) r1 = 0xffff888100000000
      7: .12....... (85) call bpf_map_lookup_elem#1
      8: 0......... (15) if r0 == 0x0 goto pc+2
      9: 0......... (b7) r1 = 1
     10: 01........ (db) lock *(u64 *)(r0 +0) += r1
     11: .......... (b7) r0 = 0
     12: 0......... (95) exit
0: R1=ctx() R10=fp0
0: (bf) r6 = r1                       ; R1=ctx() R6=ctx()
1: (30) r0 = *(u8 *)skb[23]           ; R0=scalar() R6=ctx()
2: (63) *(u32 *)(r10 -4) = r0         ; R0=scalar() R10=fp0 fp-8=mmmm????
3: (bf) r2 = r10                      ; R2=fp0 R10=fp0
4: (07) r2 += -4                      ; R2=fp-4
5: (18) r1 = 0xffff888100000000       ; R1=map_ptr(map=counts,ks=4,vs=8)
7: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=counts,ks=4,vs=8)
8: (15) if r0 == 0x0 goto pc+2        ; R0=map_value(map=counts,ks=4,vs=8)
9: (b7) r1 = 1                        ; R1=1
10: (db) lock *(u64 *)(r0 +0) += r1   ; R0=map_value(map=counts,ks=4,vs=8) R1=1
11: (b7) r0 = 0                       ; R0=0
12: (95) exit
(0) frame 0 insn 7 +live -8 
(0) frame 0 insn 0 +live -8 
(0) live stack update done in 2 iterations

from 8 to 11: safe
processed 13 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0
"""  # noqa: W291


def test_the_counting_example() -> None:
    result = judge((ROOT / "scenarios/counting.s").read_text(), MapSpec(1, 4, 8, 2, name="counts"), level=2)
    assert result.errno == 0
    assert result.log == COUNTING_LOG
    assert result.diagnosis is None


def test_an_accepted_program_logs_its_counts_only_at_level_1() -> None:
    assert judge("r0 = 0\nexit").log == (
        "processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"
    )
    assert judge("r0 = 0\nexit", level=0).log == ""


def test_level_4_tells_stack_depths() -> None:
    log = judge("*(u64 *)(r10 - 24) = 0\nr0 = 0\nexit", level=4).log
    assert log.startswith("verification time ")
    assert "\nstack depth 24\n" in log


COUNTING_LOOP = "r1 = 0\nl: r1 += 1\nif r1 < {n} goto l\nr0 = 0\nexit"


def test_a_counting_loop_is_walked_round_by_round() -> None:
    stats = judge(COUNTING_LOOP.format(n=1000)).stats
    assert (stats.insn_processed, stats.total_states, stats.peak_states, stats.max_states_per_insn) == (2003, 51, 51, 4)


@pytest.mark.parametrize(
    "text",
    [
        "r0 = 0\nl: if r1 == 0 goto out\ngoto l\nout: exit",
        "l: call bpf_get_prandom_u32\nif r0 == 5 goto out\ngoto l\nout: r0 = 0\nexit",
    ],
)
def test_infinite_loops(text: str) -> None:
    result = judge(text)
    assert result.errno == errno.EINVAL
    assert "infinite loop detected at insn " in result.log
    assert "cur state:" in result.log
    assert result.diagnosis is not None
    assert result.diagnosis["kind"] == "infinite_loop"


def test_a_loop_that_counts_for_ever_runs_out_of_waiting_paths() -> None:
    result = judge("r6 = 0\nl: call bpf_get_prandom_u32\nr6 += 1\nif r0 == 5 goto out\ngoto l\nout: r0 = 0\nexit", level=0)
    assert (result.errno, reason(result)) == (errno.EFAULT, "The sequence of 8193 jumps is too complex.")


def test_may_goto_ends_any_loop() -> None:
    text = "r6 = 0\nl: may_goto out\nr6 += 1\nr6 &= 255\ngoto l\nout: r0 = r6\nexit"
    result = judge(text, level=2)
    assert result.errno == 0
    assert "SCC enter (1)" in result.log
    assert "SCC backedge (1)" in result.log
    assert "SCC exit (1)" in result.log


def test_without_cap_bpf_the_walk_takes_no_checkpoints_beyond_64() -> None:
    branches = "".join(f"r0 = *(u32 *)(r1 + 0)\nif r0 == {n} goto +0\n" for n in range(40))
    stats = judge(branches + "r0 = 0\nexit", mode="unpriv").stats
    assert stats.insn_processed < 400


def test_state_freq_makes_every_prune_point_a_checkpoint() -> None:
    text = COUNTING_LOOP.format(n=20)
    usual, often = judge(text).stats, judge(text, prog_flags=8).stats
    assert often.total_states > 10 * usual.total_states
    assert often.insn_processed == usual.insn_processed


def test_dead_code_behind_a_decided_branch_is_never_seen() -> None:
    result = judge("r0 = 0\nif r0 == 0 goto out\nr0 = *(u64 *)(r9 + 0)\nout: exit")
    assert result.errno == 0
    assert result.program is not None
    assert [facts.seen for facts in result.program.facts] == [True, True, False, True]


def test_a_misprediction_is_stopped_by_a_barrier_not_refused() -> None:
    """Without CAP_PERFMON both ways of a decided branch are walked; a fault on the impossible one is no refusal."""
    text = "r1 = 0\nr0 = 0\nif r1 == 0 goto out\nr0 = *(u64 *)(r1 + 0)\nout: r0 = 0\nexit"
    result = judge(text, mode="unpriv", level=2)
    assert result.errno == 0
    assert "from 2 to 3 (speculative execution):" in result.log
    assert "R1 invalid mem access 'scalar'" in result.log


@pytest.mark.parametrize("mode", ["priv", "capbpf", "unpriv"])
def test_logging_changes_no_count(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below level 2 the walk takes short cuts; they change nothing but speed."""
    monkeypatch.setattr("netbpf.verifier.check.BPF_COMPLEXITY_LIMIT_INSNS", 2000)
    rng = random.Random(f"counts {mode}")
    for _ in range(300):
        record = generate(rng)
        silent, told = (verify(load_request(record, "socket_filter", mode, level)) for level in (0, 2))
        key = (told.errno, told.stats.insn_processed, told.stats.total_states, told.stats.peak_states)
        assert (silent.errno, silent.stats.insn_processed, silent.stats.total_states, silent.stats.peak_states) == key, record
        assert silent.stats.max_states_per_insn == told.stats.max_states_per_insn


def test_facts_of_a_filter() -> None:
    from netbpf.maps.create import create
    from netbpf.verifier.env import MapInfo

    live = create(HASH)
    spec = parse(
        ".map hash hash key=8 value=16 entries=4\n"
        "r6 = r1\n*(u64 *)(r10 - 8) = 7\nr2 = r10\nr2 += -8\nr1 = map[hash]\ncall bpf_map_lookup_elem\n"
        "if r0 == 0 goto out\nr1 = *(u32 *)(r6 + 0)\n*(u32 *)(r0 + 12) = r1\nout: r0 = 0\nexit"
    )
    result = verify(LoadRequest(spec.insns, fd_array_maps=(MapInfo(HASH, map=live),)))
    program = result.program
    assert program is not None
    assert program.maps == (live,)
    facts = program.facts
    assert (facts[1].ptr, facts[1].stack_off) == ("stack", -8)
    assert (facts[6].map_index, facts[6].ptr) == (0, "")
    assert facts[8].ptr == "ctx"
    assert (facts[9].ptr, facts[9].map_index) == ("map_value", 0)
    assert (program.insns[4].src, program.insns[4].imm) == (5, 0)
    assert [(s.start, s.end, s.stack_depth) for s in program.subprogs] == [(0, 12, 8)]


def test_a_pointer_of_two_kinds_is_mixed() -> None:
    text = (
        ".map hash hash key=8 value=16 entries=4\n*(u64 *)(r10 - 8) = 7\nr2 = r10\nr2 += -8\nr6 = r2\nr1 = map[hash]\n"
        "call bpf_map_lookup_elem\nif r0 == 0 goto here\nr6 = r0\nhere: r1 = *(u64 *)(r6 + 0)\nr0 = 0\nexit"
    )
    from netbpf.maps.create import create
    from netbpf.verifier.env import MapInfo

    result = verify(LoadRequest(parse(text).insns, fd_array_maps=(MapInfo(HASH, map=create(HASH)),)))
    assert result.program is not None
    assert result.program.facts[9].ptr == "mixed"


def test_privileges_are_what_capabilities_give() -> None:
    assert PRIVILEGES["unpriv"] == PRIVILEGES["unpriv"].from_caps(False, False)
    ctx_as_number = decode(bytes.fromhex("bf100000000000009500000000000000"))
    assert [judge("", insns=ctx_as_number, mode=mode).errno for mode in PRIVILEGES] == [0, errno.EACCES, errno.EACCES]
