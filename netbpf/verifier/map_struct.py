"""Reads through a map pointer into the kernel's own struct of the map."""

from __future__ import annotations

import errno
from typing import Final

from netbpf.verifier.env import Reject, VerifierEnv
from netbpf.verifier.log import verbose
from netbpf.verifier.regs import cur_regs, mark_reg_unknown
from netbpf.verifier.state import RegState

BPF_READ: Final = 1


def check_ptr_to_map_access(
    env: VerifierEnv, reg: RegState, regno: int, off: int, size: int, kind: int, value_regno: int
) -> None:
    """A load through a map pointer; needs CAP_PERFMON."""
    if not env.allow_ptr_leaks:
        verbose(env, "'struct bpf_map' access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN\n")
        raise Reject(errno.EPERM)
    if off < 0:
        verbose(env, f"R{regno} is bpf_array invalid negative access: off={off}\n")
        raise Reject(errno.EACCES)
    if kind != BPF_READ:
        verbose(env, "only read from bpf_array is supported\n")
        raise Reject(errno.EACCES)
    if value_regno >= 0:
        mark_reg_unknown(env, cur_regs(env), value_regno)
