"""The context tables: fields lie apart, and every access is answered as the running kernel answers it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from support.kernel import needs_kernel

from netbpf.abi.context import CTX_FIELDS, CTX_RULES, CTX_SIZES
from netbpf.abi.prog_types import PROG_TYPE_BY_NAME, PROG_TYPES, ProgType
from netbpf.isa.builders import (
    BPF_B,
    BPF_DW,
    BPF_EXIT_INSN,
    BPF_H,
    BPF_LDX_MEM,
    BPF_MOV64_IMM,
    BPF_ST_MEM,
    BPF_W,
    assemble,
)
from netbpf.isa.instruction import Program, encode
from netbpf.verifier.check import verify
from netbpf.verifier.env import LoadRequest, Privileges

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

SIZES = {1: BPF_B, 2: BPF_H, 4: BPF_W, 8: BPF_DW}
MODES = {"priv": Privileges.from_caps(True, True), "unpriv": Privileges.from_caps(False, False)}
ASKED = [
    (ProgType.SOCKET_FILTER, "priv"),
    (ProgType.SOCKET_FILTER, "unpriv"),
    (ProgType.CGROUP_SKB, "priv"),
    (ProgType.CGROUP_SKB, "unpriv"),
    (ProgType.SCHED_CLS, "priv"),
    (ProgType.XDP, "priv"),
]


@pytest.mark.parametrize("struct", CTX_FIELDS)
def test_fields_lie_apart(struct: str) -> None:
    end = 0
    for field in CTX_FIELDS[struct]:
        assert field.off >= end
        assert field.size % field.words == 0
        assert re.fullmatch(r"\d\.\d+", field.since)
        end = field.off + field.size
    assert end <= CTX_SIZES[struct]


@pytest.mark.parametrize("prog_type", CTX_RULES)
def test_rules_name_fields(prog_type: int) -> None:
    rules = CTX_RULES[prog_type]
    names = {field.name for field in CTX_FIELDS[rules.struct]}
    for used in (rules.hidden, rules.writable, set(rules.pointers), rules.needs_cap_bpf, rules.write_needs_cap_bpf):
        assert used <= names
    assert not rules.hidden & rules.writable


def test_program_types() -> None:
    assert [row.type for row in PROG_TYPES.values()] == sorted(ProgType, key=int)[1:]
    assert PROG_TYPE_BY_NAME["socket_filter"].may_load_abs
    assert {row.name for row in PROG_TYPES.values() if row.unpriv} == {"socket_filter", "cgroup_skb"}


def _programs(struct: str) -> list[Program]:
    """A load and a store of every width at every offset, and a little beyond."""
    end = [BPF_MOV64_IMM(0, 0), BPF_EXIT_INSN()]
    found = []
    for off in range(-4, CTX_SIZES[struct] + 5):
        for size in SIZES.values():
            found.append(assemble(BPF_LDX_MEM(size, 2, 1, off), end))
            found.append(assemble(BPF_ST_MEM(size, 1, off, 1), end))
    return found


@pytest.mark.parametrize(("prog_type", "privilege"), ASKED)
class TestKernel:
    pytestmark = needs_kernel

    def test_every_access(self, prog_type: ProgType, privilege: str) -> None:
        from kernel_oracle import Oracle

        with Oracle([privilege]) as oracle:
            for program in _programs(CTX_RULES[prog_type].struct):
                error, log = oracle.ask(privilege, encode(program), prog_type)
                ours = verify(LoadRequest(program, prog_type, log_level=2, privileges=MODES[privilege]))
                assert (ours.errno, ours.log) == (error, log), program[0]
