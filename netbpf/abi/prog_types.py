"""Program types of linux/bpf.h as rows: number, the name tools use, the release that brought it, the context it gets.

Tables only.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple


class ProgType(IntEnum):
    """enum bpf_prog_type of Linux 6.18; the C name is ``BPF_PROG_TYPE_`` + the member's."""

    UNSPEC = 0
    SOCKET_FILTER = 1
    KPROBE = 2
    SCHED_CLS = 3
    SCHED_ACT = 4
    TRACEPOINT = 5
    XDP = 6
    PERF_EVENT = 7
    CGROUP_SKB = 8
    CGROUP_SOCK = 9
    LWT_IN = 10
    LWT_OUT = 11
    LWT_XMIT = 12
    SOCK_OPS = 13
    SK_SKB = 14
    CGROUP_DEVICE = 15
    SK_MSG = 16
    RAW_TRACEPOINT = 17
    CGROUP_SOCK_ADDR = 18
    LWT_SEG6LOCAL = 19
    LIRC_MODE2 = 20
    SK_REUSEPORT = 21
    FLOW_DISSECTOR = 22
    CGROUP_SYSCTL = 23
    RAW_TRACEPOINT_WRITABLE = 24
    CGROUP_SOCKOPT = 25
    TRACING = 26
    STRUCT_OPS = 27
    EXT = 28
    LSM = 29
    SK_LOOKUP = 30
    SYSCALL = 31
    NETFILTER = 32


class ProgTypeRow(NamedTuple):
    """One type. ``name`` as bpftool and the vectors write it; ``context`` the C struct R1 points to, "" where not modelled.

    ``may_load_abs``: LD_ABS and LD_IND are allowed. ``unpriv``: a process without capabilities may load it.
    """

    type: ProgType
    name: str
    since: str
    context: str = ""
    may_load_abs: bool = False
    unpriv: bool = False


_SINCE: Final = {
    "3.19": "SOCKET_FILTER",
    "4.1": "KPROBE SCHED_CLS SCHED_ACT",
    "4.7": "TRACEPOINT",
    "4.8": "XDP",
    "4.9": "PERF_EVENT",
    "4.10": "CGROUP_SKB CGROUP_SOCK LWT_IN LWT_OUT LWT_XMIT",
    "4.13": "SOCK_OPS",
    "4.14": "SK_SKB",
    "4.15": "CGROUP_DEVICE",
    "4.17": "SK_MSG RAW_TRACEPOINT CGROUP_SOCK_ADDR",
    "4.18": "LWT_SEG6LOCAL LIRC_MODE2",
    "4.19": "SK_REUSEPORT",
    "4.20": "FLOW_DISSECTOR",
    "5.2": "CGROUP_SYSCTL RAW_TRACEPOINT_WRITABLE",
    "5.3": "CGROUP_SOCKOPT",
    "5.5": "TRACING",
    "5.6": "STRUCT_OPS EXT",
    "5.7": "LSM",
    "5.9": "SK_LOOKUP",
    "5.14": "SYSCALL",
    "6.4": "NETFILTER",
}
_CONTEXT: Final = {
    ProgType.SOCKET_FILTER: "__sk_buff",
    ProgType.SCHED_CLS: "__sk_buff",
    ProgType.SCHED_ACT: "__sk_buff",
    ProgType.CGROUP_SKB: "__sk_buff",
    ProgType.XDP: "xdp_md",
}
_LOAD_ABS: Final = frozenset({ProgType.SOCKET_FILTER, ProgType.SCHED_CLS, ProgType.SCHED_ACT})
_UNPRIV: Final = frozenset({ProgType.SOCKET_FILTER, ProgType.CGROUP_SKB})

PROG_TYPES: Final[dict[int, ProgTypeRow]] = {
    row.type: row
    for since, names in _SINCE.items()
    for row in (
        ProgTypeRow(t, t.name.lower(), since, _CONTEXT.get(t, ""), t in _LOAD_ABS, t in _UNPRIV)
        for t in (ProgType[n] for n in names.split())
    )
}
"""Rows by number."""

PROG_TYPE_BY_NAME: Final[dict[str, ProgTypeRow]] = {row.name: row for row in PROG_TYPES.values()}
"""Rows by lower-case name: ``socket_filter``."""

# BPF_PROG_LOAD prog_flags
BPF_F_STRICT_ALIGNMENT: Final = 1 << 0
BPF_F_ANY_ALIGNMENT: Final = 1 << 1
BPF_F_TEST_RND_HI32: Final = 1 << 2
BPF_F_TEST_STATE_FREQ: Final = 1 << 3
BPF_F_SLEEPABLE: Final = 1 << 4
BPF_F_XDP_HAS_FRAGS: Final = 1 << 5
BPF_F_XDP_DEV_BOUND_ONLY: Final = 1 << 6
BPF_F_TEST_REG_INVARIANTS: Final = 1 << 7
