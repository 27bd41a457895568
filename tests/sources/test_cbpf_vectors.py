"""lib/test_bpf.c's classic programs: refused, or checked, translated and run with the results recorded."""

from __future__ import annotations

from typing import Any

import pytest
from support.vectors import read_jsonl, vectors_dir

from netbpf.engine.choose import get_engine
from netbpf.env import SteppedEnv
from netbpf.errors import ProgramRejected
from netbpf.isa.classic import decode_classic
from netbpf.packet.skbuff import SkBuff
from netbpf.sources import cbpf
from netbpf.verifier.classic import prove_classic

pytestmark = pytest.mark.vectors


def classic_records() -> list[dict[str, Any]]:
    return [r for r in read_jsonl(vectors_dir() / "test_bpf" / "test_bpf.jsonl.gz") if r["kind"] == "cbpf"]


def bpf_test_skb(record: dict[str, Any], size: int) -> SkBuff:
    """The sk_buff that lib/test_bpf.c builds."""
    data = bytes.fromhex(record["data"])[:size] + bytes.fromhex(record.get("frag_data") or "")
    return SkBuff(
        head=data, len=len(data), network_header=min(size, 14), protocol=0x800, pkt_type=3, mark=0x1234AAAA, hash=0x1234AAAB,
        queue_mapping=123, vlan_tci=0xFFFF, vlan_proto=0x800, ifindex=577, dev_type=588,
    )  # fmt: skip


# what differs from the expected result for want of a kernel device or the like: none
NEEDS_A_KERNEL_DEVICE: frozenset[str] = frozenset()


@pytest.mark.parametrize("engine", ["interp", "native"])
def test_every_record(engine: str) -> None:
    """Each is translated, proved and run; those that the kernel refuses are refused with its errno."""
    wrong, refused, ran = [], 0, 0
    for record in classic_records():
        insns = decode_classic(bytes.fromhex(record["insns"]))
        if record["expected_errcode"]:
            with pytest.raises(ProgramRejected) as e:
                cbpf.to_spec(insns)
            assert -e.value.errno == record["expected_errcode"], record["name"]
            refused += 1
            continue
        loaded = get_engine(engine).load(prove_classic(cbpf.to_spec(insns)), SteppedEnv(1))
        for size, want in record["tests"]:
            got = loaded.run_one(bpf_test_skb(record, size)) & 0xFFFF_FFFF
            ran += 1
            if got != want and record["name"] not in NEEDS_A_KERNEL_DEVICE:
                wrong.append((record["name"], size, want, got))
    assert not wrong
    assert (refused, ran > 100) == (8, True)
