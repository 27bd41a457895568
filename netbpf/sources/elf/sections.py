"""What a section's name says of the programs in it: SEC("socket"), SEC("classifier/ingress") ... as rows.

Tables only, and the one function that reads them. The names are those of libbpf's documentation ("Program Types and ELF
Sections") and the older ones of the kernel's samples.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from netbpf.abi.prog_types import ProgType


class SectionKind(NamedTuple):
    """``prog_type`` and ``attach_type`` (expected_attach_type) of BPF_PROG_LOAD; ``prog_flags`` likewise."""

    prog_type: int
    attach_type: int = 0
    prog_flags: int = 0


_P = ProgType
_SLEEPABLE: Final = 1 << 4
_XDP_FRAGS: Final = 1 << 5

# enum bpf_attach_type
_INET_INGRESS, _INET_EGRESS, _SOCK_CREATE, _SOCK_OPS, _SKB_PARSER, _SKB_VERDICT, _DEVICE, _MSG_VERDICT = range(8)
_SOCK_ADDR: Final = {
    "bind4": 8, "bind6": 9, "connect4": 10, "connect6": 11, "sendmsg4": 14, "sendmsg6": 15, "recvmsg4": 19, "recvmsg6": 20,
    "getpeername4": 29, "getpeername6": 30, "getsockname4": 31, "getsockname6": 32,
}  # fmt: skip

EXACT: Final[dict[str, SectionKind]] = {
    "tc/ingress": SectionKind(_P.SCHED_CLS, 46),
    "tc/egress": SectionKind(_P.SCHED_CLS, 47),
    "tcx/ingress": SectionKind(_P.SCHED_CLS, 46),
    "tcx/egress": SectionKind(_P.SCHED_CLS, 47),
    "sk_skb/stream_parser": SectionKind(_P.SK_SKB, _SKB_PARSER),
    "sk_skb/stream_verdict": SectionKind(_P.SK_SKB, _SKB_VERDICT),
    "cgroup_skb/ingress": SectionKind(_P.CGROUP_SKB, _INET_INGRESS),
    "cgroup_skb/egress": SectionKind(_P.CGROUP_SKB, _INET_EGRESS),
    "cgroup/skb": SectionKind(_P.CGROUP_SKB),
    "cgroup/sock_create": SectionKind(_P.CGROUP_SOCK, _SOCK_CREATE),
    "cgroup/sock_release": SectionKind(_P.CGROUP_SOCK, 34),
    "cgroup/sock": SectionKind(_P.CGROUP_SOCK, _SOCK_CREATE),
    "cgroup/post_bind4": SectionKind(_P.CGROUP_SOCK, 12),
    "cgroup/post_bind6": SectionKind(_P.CGROUP_SOCK, 13),
    "cgroup/sysctl": SectionKind(_P.CGROUP_SYSCTL, 18),
    "cgroup/getsockopt": SectionKind(_P.CGROUP_SOCKOPT, 21),
    "cgroup/setsockopt": SectionKind(_P.CGROUP_SOCKOPT, 22),
    "cgroup/dev": SectionKind(_P.CGROUP_DEVICE, _DEVICE),
    "xdp.frags": SectionKind(_P.XDP, 37, _XDP_FRAGS),
    "sk_reuseport/migrate": SectionKind(_P.SK_REUSEPORT, 40),
    "xdp/devmap": SectionKind(_P.XDP, 33),
    "xdp/cpumap": SectionKind(_P.XDP, 35),
} | {f"cgroup/{name}": SectionKind(_P.CGROUP_SOCK_ADDR, number) for name, number in _SOCK_ADDR.items()}

# a name that is the word itself, or the word and a slash and anything
PREFIX: Final[dict[str, SectionKind]] = {
    "socket": SectionKind(_P.SOCKET_FILTER),
    "filter": SectionKind(_P.SOCKET_FILTER),
    "tc": SectionKind(_P.SCHED_CLS),
    "classifier": SectionKind(_P.SCHED_CLS),
    "action": SectionKind(_P.SCHED_ACT),
    "xdp": SectionKind(_P.XDP, 37),
    "kprobe": SectionKind(_P.KPROBE),
    "kretprobe": SectionKind(_P.KPROBE),
    "uprobe": SectionKind(_P.KPROBE),
    "uretprobe": SectionKind(_P.KPROBE),
    "tracepoint": SectionKind(_P.TRACEPOINT),
    "tp": SectionKind(_P.TRACEPOINT),
    "raw_tracepoint": SectionKind(_P.RAW_TRACEPOINT),
    "raw_tp": SectionKind(_P.RAW_TRACEPOINT),
    "perf_event": SectionKind(_P.PERF_EVENT),
    "lwt_in": SectionKind(_P.LWT_IN),
    "lwt_out": SectionKind(_P.LWT_OUT),
    "lwt_xmit": SectionKind(_P.LWT_XMIT),
    "lwt_seg6local": SectionKind(_P.LWT_SEG6LOCAL),
    "sockops": SectionKind(_P.SOCK_OPS, _SOCK_OPS),
    "sk_skb": SectionKind(_P.SK_SKB),
    "sk_msg": SectionKind(_P.SK_MSG, _MSG_VERDICT),
    "sk_reuseport": SectionKind(_P.SK_REUSEPORT, 39),
    "sk_lookup": SectionKind(_P.SK_LOOKUP, 36),
    "flow_dissector": SectionKind(_P.FLOW_DISSECTOR, 17),
    "cgroup_skb": SectionKind(_P.CGROUP_SKB),
    "netfilter": SectionKind(_P.NETFILTER, 45),
    "syscall": SectionKind(_P.SYSCALL, 0, _SLEEPABLE),
}

# programs that need a function or a hook of a running kernel: (BPF_PROG_LOAD's attach_btf_id)
TARGETED: Final = frozenset(
    "fentry fexit fmod_ret tp_btf lsm lsm_cgroup iter freplace struct_ops fentry.s fexit.s fmod_ret.s lsm.s iter.s".split()
)


def section_kind(name: str) -> SectionKind | None:
    """The row of a section's name, or None. A leading ``?`` (libbpf: do not load unless asked) is no part of it; a socket
    section may end in a number, as in the kernel's samples (``socket1``)."""
    name = name.removeprefix("?")
    if name in EXACT:
        return EXACT[name]
    word = name.split("/", 1)[0]
    if word in PREFIX:
        return PREFIX[word]
    return PREFIX["socket"] if word.rstrip("0123456789") == "socket" else None
