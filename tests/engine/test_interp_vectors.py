"""Programs that Linux 6.18 accepted and ran, run again: R0 must be the recorded one."""

from __future__ import annotations

from typing import Any

import pytest
from support.running import FRAMES, loopback_skb, record_program, unproved
from support.vectors import read_jsonl, vectors_dir

from netbpf.engine.interp import jump
from netbpf.engine.interp.engine import InterpEngine
from netbpf.env import SteppedEnv
from netbpf.errors import NetbpfError
from netbpf.isa.instruction import decode
from netbpf.packet.skbuff import SkBuff

pytestmark = pytest.mark.vectors

NOT_OURS = {
    "verifier_sockmap_mutate.c:test_socket_filter": "its map kind does not exist here",
    "verifier_unpriv.c:pass_pointer_to_tail_call": "uses the low half of an address as an index",
    **dict.fromkeys(
        ("ctx_value/sched_cls/priv/4/80", "ctx_value/sched_cls/priv/4/140"), "returns the low half of a packet pointer"
    ),
    **dict.fromkeys(
        (f"verifier_iterating_callbacks.c:cond_break{i}" for i in (1, 2, 3)), "counts to a million: equal, but a minute of work"
    ),
}
LOOPS = 1 << 14  # in place of 8 M rounds of may_goto, so that endless ones end sooner


def outcome(record: dict[str, Any], frame: str) -> int | str:
    """R0 as u32, or the words of what went wrong."""
    try:
        loaded = InterpEngine().load(record_program(record), SteppedEnv(1))
        return loaded.run_one(loopback_skb(FRAMES[frame], is_l2=record["prog_type"] == "sched_cls")) & 0xFFFF_FFFF
    except NetbpfError as e:
        return f"{type(e).__name__}: {e}"


@pytest.mark.parametrize("name", ["selftests", "alu"])
def test_accepted_programs_return_what_the_kernel_returned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jump, "BPF_MAX_LOOPS", LOOPS)
    wrong, ran = [], 0
    for record in read_jsonl(vectors_dir() / "verifier" / f"{name}.jsonl.gz"):
        kernel = record["kernel"]
        if record["prog_type"] != "socket_filter" or kernel["verdict"] != "accept":
            continue
        if record.get("run_unstable") or record["id"] in NOT_OURS:
            continue
        for frame in FRAMES:
            want = (kernel.get(f"run_{frame}") or {}).get("retval")
            if want is None:
                continue
            ran += 1
            got = outcome(record, frame)
            if got != want:
                wrong.append((record["id"], frame, want, got))
    assert not wrong
    assert ran > 500


def test_context_fields_and_packet_loads_give_the_kernels_values() -> None:
    wrong, ran = [], 0
    for record in read_jsonl(vectors_dir() / "verifier" / "sweep.jsonl.gz"):
        if record["verdict"] != "accept" or record["prog_type"] == "xdp" or record["id"] in NOT_OURS:
            continue
        for frame, want in (record.get("runs") or {}).items():
            ran += 1
            got = outcome(record, frame)
            if got != want:
                wrong.append((record["id"], record["prog_type"], frame, want, got))
    assert not wrong
    assert ran > 4000


def test_bpf_programs_give_their_expected_results() -> None:
    wrong, ran = [], 0
    for record in read_jsonl(vectors_dir() / "test_bpf" / "test_bpf.jsonl.gz"):
        if record["kind"] != "ebpf":
            continue
        loaded = InterpEngine().load(unproved(decode(bytes.fromhex(record["insns"]))), SteppedEnv(1))
        for size, want in record["tests"]:
            large = "FLAG_LARGE_MEM" in record["flags"]  # then R1 is memory of the test, not a context
            ran += 1
            try:
                r0 = loaded.run_memory(bytearray(8192)) if large else loaded.run_one(bpf_test_skb(record, size))
            except NetbpfError as e:
                wrong.append((record["name"], size, want, str(e)))
                continue
            if r0 & 0xFFFF_FFFF != want:
                wrong.append((record["name"], size, want, r0))
    assert not wrong
    assert ran > 450


def bpf_test_skb(record: dict[str, Any], size: int) -> SkBuff:
    """The sk_buff that lib/test_bpf.c builds."""
    data = bytes.fromhex(record["data"])[:size] + bytes.fromhex(record.get("frag_data") or "")
    return SkBuff(
        head=data, len=len(data), network_header=min(size, 14), protocol=0x800, pkt_type=3, mark=0x1234AAAA, hash=0x1234AAAB,
        queue_mapping=123, vlan_tci=0xFFFF, vlan_proto=0x800, ifindex=577, dev_type=588,
    )  # fmt: skip
