"""Which expected_attach_type each program type takes at BPF_PROG_LOAD. Rows of numbers as enum bpf_attach_type has them."""

from __future__ import annotations

from typing import Final

from netbpf.abi.prog_types import ProgType

_SOCK_ADDR: Final = frozenset({8, 9, 10, 11, 14, 15, 19, 20, 29, 30, 31, 32, 50, 51, 52, 53, 54})

# Types that are not here take any value (and keep it).
_ALLOWED: Final[dict[int, frozenset[int]]] = {
    ProgType.CGROUP_SOCK: frozenset({2, 12, 13, 34}),
    ProgType.CGROUP_SOCK_ADDR: _SOCK_ADDR,
    ProgType.CGROUP_SKB: frozenset({0, 1}),
    ProgType.CGROUP_SOCKOPT: frozenset({21, 22}),
    ProgType.SK_LOOKUP: frozenset({36}),
    ProgType.SK_REUSEPORT: frozenset({39, 40}),
    ProgType.NETFILTER: frozenset({45}),
    ProgType.SYSCALL: frozenset({0}),
    ProgType.EXT: frozenset({0}),
}
# What 0 stands for, of types that are older than the field.
_FROM_ZERO: Final[dict[int, int]] = {ProgType.CGROUP_SOCK: 2, ProgType.SK_REUSEPORT: 39}


def fix_attach_type(prog_type: int, attach_type: int) -> int:
    """bpf_prog_load_fixup_attach_type."""
    return attach_type or _FROM_ZERO.get(prog_type, 0)


def is_attach_type_ok(prog_type: int, attach_type: int) -> bool:
    """bpf_prog_load_check_attach."""
    allowed = _ALLOWED.get(prog_type)
    return allowed is None or attach_type in allowed
