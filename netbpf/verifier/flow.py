"""The control-flow graph of each function: successors, postorder and loops, found before the walk."""

from __future__ import annotations

from typing import Final

from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction
from netbpf.verifier.env import VerifierEnv
from netbpf.verifier.structure import LD_IMM64, jmp_offset

_NO_FALLTHROUGH: Final = frozenset({op.BPF_JMP | op.BPF_JA, op.BPF_JMP32 | op.BPF_JA, op.BPF_JMP | op.BPF_EXIT})


def insn_successors(insn: Instruction, idx: int) -> tuple[int, ...]:
    """Where an instruction goes within its function: the next one first, then a jump's target. A call goes to the next."""
    code = insn.code
    after = idx + (2 if code == LD_IMM64 else 1)
    if code & 7 not in (op.BPF_JMP, op.BPF_JMP32) or code == op.BPF_JMP | op.BPF_CALL:
        return (after,)
    if code == op.BPF_JMP | op.BPF_EXIT:
        return ()
    target = idx + jmp_offset(insn) + 1
    return (target,) if code in _NO_FALLTHROUGH else (after, target)


def compute_postorder(env: VerifierEnv) -> None:
    """Each function's instructions, successors before predecessors: env.postorder, from SubprogInfo.postorder_start on."""
    insns = env.insns
    env.successors = [insn_successors(insn, i) for i, insn in enumerate(insns)]
    discovered, explored = bytearray(len(insns)), bytearray(len(insns))
    order: list[int] = []
    for subprog in env.subprogs:
        subprog.postorder_start = len(order)
        stack = [subprog.start]
        while stack:
            top = stack[-1]
            discovered[top] = 1
            if explored[top]:
                order.append(top)
                stack.pop()
                continue
            for s in env.successors[top]:
                if not discovered[s]:
                    discovered[s] = 1
                    stack.append(s)
            explored[top] = 1
    env.postorder = order


def compute_scc(env: VerifierEnv) -> None:
    """Number the loops from 1 (Tarjan, iterative); InsnAux.scc is 0 outside any."""
    n = len(env.insns)
    successors = env.successors
    low, pre = [0] * n, [0] * n
    done = n + 1
    counter = scc = 1
    component: list[int] = []
    for root in range(n):
        if pre[root] or (root and env.insns[root - 1].code == LD_IMM64):
            continue
        work = [root]
        while work:
            w = work[-1]
            if not pre[w]:
                low[w] = pre[w] = counter
                counter += 1
                component.append(w)
            unvisited = _next_unvisited(successors[w], w, pre, low)
            if unvisited >= 0:
                work.append(unvisited)
                continue
            work.pop()
            if low[w] < pre[w]:
                continue
            is_loop = component[-1] != w or w in successors[w]
            while True:
                t = component.pop()
                low[t] = done
                if is_loop:
                    env.insn_aux[t].scc = scc
                if t == w:
                    break
            scc += is_loop
    env.scc_visits = {}


def _next_unvisited(successors: tuple[int, ...], w: int, pre: list[int], low: list[int]) -> int:
    for s in successors:
        if not pre[s]:
            return s
        if low[s] < low[w]:
            low[w] = low[s]
    return -1
