"""Which encodings are instructions: the engines agree with the table."""

from __future__ import annotations

from netbpf.engine.interp.decode import MAKERS
from netbpf.isa import opcodes as op
from netbpf.isa.encoding import CODES, encoding_problem
from netbpf.isa.instruction import Instruction

ANYWHERE = frozenset(range(8))


def test_the_interpreter_has_an_op_for_every_code() -> None:
    assert set(MAKERS) == CODES


def test_atomic_kinds_have_their_sizes() -> None:
    def problem(size: int, kind: int) -> str:
        return encoding_problem(Instruction(op.BPF_STX | op.BPF_ATOMIC | size, 1, 2, 0, kind), 0, 8, ANYWHERE)

    assert problem(op.BPF_DW, op.BPF_ADD) == problem(op.BPF_W, op.BPF_XOR | op.BPF_FETCH) == problem(op.BPF_W, op.BPF_XCHG) == ""
    assert problem(op.BPF_B, op.BPF_LOAD_ACQ) == problem(op.BPF_H, op.BPF_STORE_REL) == ""
    assert problem(op.BPF_H, op.BPF_ADD) == "there is no atomic operation 0x0 on 2 bytes"
    for kind in (op.BPF_XCHG & ~op.BPF_FETCH, op.BPF_CMPXCHG & ~op.BPF_FETCH, op.BPF_SUB):
        assert problem(op.BPF_DW, kind) == f"there is no atomic operation {kind:#x} on 8 bytes"
