"""The context structs a program sees through R1, field by field: where, how wide, how it may be read, who may write it.

Tables only; ``verifier.ctx`` applies them, engines read them. Offsets and widths in bytes.

``access`` says which loads a readable field takes:
    narrow   any naturally aligned 1, 2 or 4 bytes inside one of its 4-byte words
    word     exactly 4 bytes at a word's start
    dword    exactly 8 bytes at its start
    start    1, 2 or 4 bytes at a word's start
    port     a 16-bit member in a 4-byte word: its bytes, or the whole word
    bytes    any naturally aligned 1 to 8 bytes inside it (cb)
    byte     exactly 1 byte
"""

from __future__ import annotations

from typing import Final, NamedTuple

from netbpf.abi.prog_types import ProgType


class CtxField(NamedTuple):
    """One member of a context struct. ``words`` > 1 for arrays of u32."""

    name: str
    off: int
    size: int
    access: str
    since: str
    words: int = 1


class CtxRules(NamedTuple):
    """What one program type may do with a context struct's fields.

    ``hidden``: fields it may not touch. ``writable``: fields it may store to. ``pointers``: fields whose load gives a
    pointer, by kind: "pkt", "pkt_meta", "pkt_end", "sock_common_or_null". ``needs_cap_bpf``: fields that take CAP_BPF,
    to read or write.
    """

    struct: str
    hidden: frozenset[str]
    writable: frozenset[str]
    pointers: dict[str, str]
    needs_cap_bpf: frozenset[str] = frozenset()
    write_needs_cap_bpf: frozenset[str] = frozenset()


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _sk_buff_rows() -> tuple[CtxField, ...]:
    words = (
        ("len", "4.1"),
        ("pkt_type", "4.1"),
        ("mark", "4.1"),
        ("queue_mapping", "4.1"),
        ("protocol", "4.1"),
        ("vlan_present", "4.1"),
        ("vlan_tci", "4.1"),
        ("vlan_proto", "4.1"),
        ("priority", "4.1"),
        ("ingress_ifindex", "4.2"),
        ("ifindex", "4.2"),
        ("tc_index", "4.2"),
    )
    return tuple(CtxField(name, 4 * i, 4, "narrow", since) for i, (name, since) in enumerate(words))


SK_BUFF_FIELDS: Final[tuple[CtxField, ...]] = (
    *_sk_buff_rows(),
    CtxField("cb", 48, 20, "bytes", "4.2", 5),
    CtxField("hash", 68, 4, "narrow", "4.3"),
    CtxField("tc_classid", 72, 4, "narrow", "4.4"),
    CtxField("data", 76, 4, "word", "4.7"),
    CtxField("data_end", 80, 4, "word", "4.7"),
    CtxField("napi_id", 84, 4, "narrow", "4.12"),
    CtxField("family", 88, 4, "narrow", "4.14"),
    CtxField("remote_ip4", 92, 4, "word", "4.14"),
    CtxField("local_ip4", 96, 4, "word", "4.14"),
    CtxField("remote_ip6", 100, 16, "word", "4.14", 4),
    CtxField("local_ip6", 116, 16, "word", "4.14", 4),
    CtxField("remote_port", 132, 4, "narrow", "4.14"),
    CtxField("local_port", 136, 4, "narrow", "4.14"),
    CtxField("data_meta", 140, 4, "word", "4.15"),
    CtxField("flow_keys", 144, 8, "dword", "4.20"),
    CtxField("tstamp", 152, 8, "dword", "5.0"),
    CtxField("wire_len", 160, 4, "narrow", "5.0"),
    CtxField("gso_segs", 164, 4, "narrow", "5.1"),
    CtxField("sk", 168, 8, "dword", "5.1"),
    CtxField("gso_size", 176, 4, "narrow", "5.8"),
    CtxField("tstamp_type", 180, 1, "byte", "5.18"),
    CtxField("hwtstamp", 184, 8, "dword", "5.16"),
)
"""struct __sk_buff of Linux 6.18, 192 bytes."""

SK_BUFF_SIZE: Final = 192

KEPT_BYTES: Final[dict[str, int]] = {
    **dict.fromkeys(("pkt_type", "tstamp_type"), 1),
    **dict.fromkeys(("queue_mapping", "protocol", "vlan_tci", "vlan_proto", "tc_index", "tc_classid"), 2),
    **dict.fromkeys(("family", "remote_port", "local_port", "gso_segs", "gso_size"), 2),
}
"""Fields of ``__sk_buff`` that the kernel keeps in fewer bytes than they show. A narrow load shifts the wanted bytes down only
when it is narrower than that: two bytes at ``protocol`` + 2 read the protocol, one byte at ``pkt_type`` + 3 the packet type."""

XDP_MD_FIELDS: Final[tuple[CtxField, ...]] = (
    CtxField("data", 0, 4, "word", "4.8"),
    CtxField("data_end", 4, 4, "word", "4.8"),
    CtxField("data_meta", 8, 4, "word", "4.15"),
    CtxField("ingress_ifindex", 12, 4, "word", "4.16"),
    CtxField("rx_queue_index", 16, 4, "word", "4.16"),
    CtxField("egress_ifindex", 20, 4, "word", "5.8"),
)
"""struct xdp_md, 24 bytes."""

BPF_SOCK_FIELDS: Final[tuple[CtxField, ...]] = (
    CtxField("bound_dev_if", 0, 4, "word", "4.10"),
    CtxField("family", 4, 4, "start", "4.14"),
    CtxField("type", 8, 4, "start", "4.14"),
    CtxField("protocol", 12, 4, "start", "4.14"),
    CtxField("mark", 16, 4, "word", "4.14"),
    CtxField("priority", 20, 4, "word", "4.14"),
    CtxField("src_ip4", 24, 4, "start", "4.17"),
    CtxField("src_ip6", 28, 16, "narrow", "4.17", 4),
    CtxField("src_port", 44, 4, "word", "4.17"),
    CtxField("dst_port", 48, 4, "port", "5.1"),
    CtxField("dst_ip4", 52, 4, "start", "5.1"),
    CtxField("dst_ip6", 56, 16, "narrow", "5.1", 4),
    CtxField("state", 72, 4, "start", "5.1"),
    CtxField("rx_queue_mapping", 76, 4, "start", "5.8"),
)
"""struct bpf_sock, 80 bytes: what ``__sk_buff.sk`` points to."""

CTX_FIELDS: Final[dict[str, tuple[CtxField, ...]]] = {
    "__sk_buff": SK_BUFF_FIELDS,
    "xdp_md": XDP_MD_FIELDS,
    "bpf_sock": BPF_SOCK_FIELDS,
}
CTX_SIZES: Final[dict[str, int]] = {"__sk_buff": SK_BUFF_SIZE, "xdp_md": 24, "bpf_sock": 80}

_PACKET: Final = {"data": "pkt", "data_meta": "pkt_meta", "data_end": "pkt_end"}
_SOCKET: Final = _names("family remote_ip4 local_ip4 remote_ip6 local_ip6 remote_port local_port")

_TC: Final = CtxRules(
    "__sk_buff",
    _SOCKET | {"flow_keys"},
    _names("mark tc_index priority tc_classid cb tstamp queue_mapping"),
    {**_PACKET, "sk": "sock_common_or_null"},
)

CTX_RULES: Final[dict[int, CtxRules]] = {
    ProgType.SOCKET_FILTER: CtxRules(
        "__sk_buff",
        _SOCKET | _names("tc_classid data data_meta data_end flow_keys tstamp wire_len tstamp_type hwtstamp"),
        frozenset({"cb"}),
        {"sk": "sock_common_or_null"},
    ),
    ProgType.CGROUP_SKB: CtxRules(
        "__sk_buff",
        _names("tc_classid data_meta flow_keys wire_len tstamp_type"),
        _names("mark priority cb tstamp"),
        {"data": "pkt", "data_end": "pkt_end", "sk": "sock_common_or_null"},
        frozenset({"data", "data_end"}),
        frozenset({"tstamp"}),
    ),
    ProgType.SCHED_CLS: _TC,
    ProgType.SCHED_ACT: _TC,
    ProgType.XDP: CtxRules("xdp_md", frozenset({"egress_ifindex"}), frozenset(), dict(_PACKET)),
}
"""Rules by program type."""

SOCK_COMMON_HIDDEN: Final = _names("type protocol mark priority")
"""Fields of struct bpf_sock that a sock_common (as opposed to a full socket) does not show."""
