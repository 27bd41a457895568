"""Every helper of Linux 6.18 as a row: number, name, release that brought it; for those a socket filter may call also its
prototype and the capability it takes.

Tables only: what an argument kind demands is checked in ``verifier.calls``, what a helper does is an engine's business.
A row with ``cap`` None is a helper that no socket filter gets: it has a prototype where cgroup_skb, sched_cls or xdp get it,
and is else known by name only, so that the refusal can name it. ``helper_cap`` answers for every program type.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from netbpf.abi.arg_types import (
    ARG_ANYTHING,
    ARG_CONST_ALLOC_SIZE_OR_ZERO,
    ARG_CONST_MAP_PTR,
    ARG_CONST_SIZE,
    ARG_CONST_SIZE_OR_ZERO,
    ARG_KPTR_XCHG_DEST,
    ARG_PTR_TO_BTF_ID,
    ARG_PTR_TO_BTF_ID_OR_NULL,
    ARG_PTR_TO_BTF_ID_SOCK_COMMON,
    ARG_PTR_TO_CONST_STR,
    ARG_PTR_TO_CTX,
    ARG_PTR_TO_DYNPTR,
    ARG_PTR_TO_FIXED_SIZE_MEM,
    ARG_PTR_TO_FUNC,
    ARG_PTR_TO_MAP_KEY,
    ARG_PTR_TO_MAP_VALUE,
    ARG_PTR_TO_MAP_VALUE_OR_NULL,
    ARG_PTR_TO_MEM,
    ARG_PTR_TO_MEM_OR_NULL,
    ARG_PTR_TO_PERCPU_BTF_ID,
    ARG_PTR_TO_RINGBUF_MEM,
    ARG_PTR_TO_SOCK_COMMON,
    ARG_PTR_TO_SPIN_LOCK,
    ARG_PTR_TO_STACK_OR_NULL,
    ARG_PTR_TO_TIMER,
    ARG_PTR_TO_UNINIT_MEM,
    DYNPTR_TYPE_LOCAL,
    DYNPTR_TYPE_RINGBUF,
    MEM_ALIGNED,
    MEM_RDONLY,
    MEM_UNINIT,
    MEM_WRITE,
    OBJ_RELEASE,
    PTR_MAYBE_NULL,
    RET_INTEGER,
    RET_PTR_TO_BTF_ID,
    RET_PTR_TO_BTF_ID_OR_NULL,
    RET_PTR_TO_BTF_ID_TRUSTED,
    RET_PTR_TO_DYNPTR_MEM_OR_NULL,
    RET_PTR_TO_MAP_VALUE,
    RET_PTR_TO_MAP_VALUE_OR_NULL,
    RET_PTR_TO_MEM_OR_BTF_ID,
    RET_PTR_TO_RINGBUF_MEM_OR_NULL,
    RET_PTR_TO_SOCK_COMMON_OR_NULL,
    RET_PTR_TO_SOCKET_OR_NULL,
    RET_PTR_TO_TCP_SOCK_OR_NULL,
    RET_VOID,
)
from netbpf.abi.prog_types import ProgType

CAP_NONE: Final = ""
CAP_BPF: Final = "CAP_BPF"
CAP_PERFMON: Final = "CAP_PERFMON"


@dataclass(frozen=True, slots=True)
class HelperProto:
    """One helper. ``args`` are bpf_arg_type values of R1.. in order; ``since`` is a Linux release.

    ``cap``: what a socket filter's loader must have ("" nothing, "CAP_BPF", "CAP_PERFMON"; None: no socket filter gets it).
    ``fixed_size``: bytes an ARG_PTR_TO_FIXED_SIZE_MEM argument points to. ``ret_btf``: kernel struct of a
    RET_PTR_TO_BTF_ID, ``arg_btf`` that of an ARG_PTR_TO_BTF_ID.
    """

    id: int
    name: str
    since: str
    cap: str | None = None
    ret_type: int = RET_INTEGER
    args: tuple[int, ...] = ()
    gpl_only: bool = False
    pkt_access: bool = False
    might_sleep: bool = False
    allow_fastcall: bool = False
    changes_pkt_data: bool = False
    fixed_size: int = 0
    ret_btf: str = ""
    arg_btf: str = ""

    @property
    def func_name(self) -> str:
        """As the log prints it: ``bpf_map_lookup_elem``."""
        return f"bpf_{self.name}"


# Names in the order of their numbers, by the release that brought them.
_BY_RELEASE: Final = (
    ("3.18", "unspec"),
    ("3.19", "map_lookup_elem map_update_elem map_delete_elem"),
    (
        "4.1",
        "probe_read ktime_get_ns trace_printk get_prandom_u32 get_smp_processor_id skb_store_bytes l3_csum_replace "
        "l4_csum_replace",
    ),
    ("4.2", "tail_call clone_redirect get_current_pid_tgid get_current_uid_gid get_current_comm"),
    ("4.3", "get_cgroup_classid skb_vlan_push skb_vlan_pop skb_get_tunnel_key skb_set_tunnel_key perf_event_read"),
    ("4.4", "redirect get_route_realm perf_event_output"),
    ("4.5", "skb_load_bytes"),
    ("4.6", "get_stackid csum_diff skb_get_tunnel_opt skb_set_tunnel_opt"),
    ("4.8", "skb_change_proto skb_change_type skb_under_cgroup get_hash_recalc get_current_task probe_write_user"),
    ("4.9", "current_task_under_cgroup skb_change_tail skb_pull_data csum_update set_hash_invalid"),
    ("4.10", "get_numa_node_id skb_change_head xdp_adjust_head"),
    ("4.11", "probe_read_str"),
    ("4.12", "get_socket_cookie get_socket_uid"),
    ("4.13", "set_hash setsockopt skb_adjust_room"),
    ("4.14", "redirect_map sk_redirect_map sock_map_update"),
    ("4.15", "xdp_adjust_meta perf_event_read_value perf_prog_read_value getsockopt"),
    ("4.16", "override_return sock_ops_cb_flags_set"),
    ("4.17", "msg_redirect_map msg_apply_bytes msg_cork_bytes msg_pull_data bind"),
    (
        "4.18",
        "xdp_adjust_tail skb_get_xfrm_state get_stack skb_load_bytes_relative fib_lookup sock_hash_update msg_redirect_hash "
        "sk_redirect_hash lwt_push_encap lwt_seg6_store_bytes lwt_seg6_adjust_srh lwt_seg6_action rc_repeat rc_keydown "
        "skb_cgroup_id get_current_cgroup_id",
    ),
    ("4.19", "get_local_storage sk_select_reuseport skb_ancestor_cgroup_id"),
    ("4.20", "sk_lookup_tcp sk_lookup_udp sk_release map_push_elem map_pop_elem map_peek_elem msg_push_data"),
    ("5.0", "msg_pop_data rc_pointer_rel"),
    ("5.1", "spin_lock spin_unlock sk_fullsock tcp_sock skb_ecn_set_ce get_listener_sock"),
    (
        "5.2",
        "skc_lookup_tcp tcp_check_syncookie sysctl_get_name sysctl_get_current_value sysctl_get_new_value sysctl_set_new_value "
        "strtol strtoul sk_storage_get sk_storage_delete",
    ),
    ("5.3", "send_signal tcp_gen_syncookie"),
    ("5.5", "skb_output probe_read_user probe_read_kernel probe_read_user_str probe_read_kernel_str"),
    ("5.6", "tcp_send_ack send_signal_thread jiffies64"),
    ("5.7", "read_branch_records get_ns_current_pid_tgid xdp_output get_netns_cookie get_current_ancestor_cgroup_id sk_assign"),
    (
        "5.8",
        "ktime_get_boot_ns seq_printf seq_write sk_cgroup_id sk_ancestor_cgroup_id ringbuf_output ringbuf_reserve ringbuf_submit "
        "ringbuf_discard ringbuf_query csum_level",
    ),
    (
        "5.9",
        "skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock skc_to_tcp_request_sock skc_to_udp6_sock get_task_stack",
    ),
    (
        "5.10",
        "load_hdr_opt store_hdr_opt reserve_hdr_opt inode_storage_get inode_storage_delete d_path copy_from_user snprintf_btf "
        "seq_printf_btf skb_cgroup_classid redirect_neigh per_cpu_ptr this_cpu_ptr redirect_peer",
    ),
    (
        "5.11",
        "task_storage_get task_storage_delete get_current_task_btf bprm_opts_set ktime_get_coarse_ns ima_inode_hash "
        "sock_from_file",
    ),
    ("5.12", "check_mtu"),
    ("5.13", "for_each_map_elem snprintf"),
    ("5.14", "sys_bpf btf_find_by_name_kind sys_close"),
    ("5.15", "timer_init timer_set_callback timer_start timer_cancel get_func_ip get_attach_cookie task_pt_regs"),
    ("5.16", "get_branch_snapshot trace_vprintk skc_to_unix_sock kallsyms_lookup_name"),
    ("5.17", "find_vma loop strncmp get_func_arg get_func_ret get_func_arg_cnt"),
    (
        "5.18",
        "get_retval set_retval xdp_get_buff_len xdp_load_bytes xdp_store_bytes copy_from_user_task skb_set_tstamp ima_file_hash",
    ),
    (
        "5.19",
        "kptr_xchg map_lookup_percpu_elem skc_to_mptcp_sock dynptr_from_mem ringbuf_reserve_dynptr ringbuf_submit_dynptr "
        "ringbuf_discard_dynptr dynptr_read dynptr_write dynptr_data",
    ),
    (
        "6.0",
        "tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6",
    ),
    ("6.1", "ktime_get_tai_ns user_ringbuf_drain"),
    ("6.2", "cgrp_storage_get cgrp_storage_delete"),
)

_NAMES: Final = tuple((name, since) for since, names in _BY_RELEASE for name in names.split())

FUNC_IDS: Final[dict[str, int]] = {name: number for number, (name, _) in enumerate(_NAMES)}
"""Helper number by name without ``bpf_``: FUNC_IDS["map_lookup_elem"] == 1."""

MAX_FUNC_ID: Final = len(_NAMES)
"""__BPF_FUNC_MAX_ID: numbers from here on are ``invalid func unknown#N``."""


def _row(
    cap: str | None,
    name: str,
    ret_type: int,
    *args: int,
    fixed_size: int = 0,
    flags: str = "",
    ret_btf: str = "",
    arg_btf: str = "",
) -> HelperProto:
    """A prototype; ``flags`` are words: gpl, pkt, sleep, fastcall, changes."""
    words = set(flags.split())
    number = FUNC_IDS[name]
    return HelperProto(
        number,
        name,
        _NAMES[number][1],
        cap,
        ret_type,
        args,
        gpl_only="gpl" in words,
        pkt_access="pkt" in words,
        might_sleep="sleep" in words,
        allow_fastcall="fastcall" in words,
        changes_pkt_data="changes" in words,
        fixed_size=fixed_size,
        ret_btf=ret_btf,
        arg_btf=arg_btf,
    )


_MEM_R: Final = ARG_PTR_TO_MEM | MEM_RDONLY
_MEM_R_OR_NULL: Final = ARG_PTR_TO_MEM_OR_NULL | MEM_RDONLY
_MEM_W: Final = ARG_PTR_TO_UNINIT_MEM
_LONG_W: Final = ARG_PTR_TO_FIXED_SIZE_MEM | MEM_UNINIT | MEM_WRITE | MEM_ALIGNED
_INT_RW: Final = ARG_PTR_TO_FIXED_SIZE_MEM | MEM_WRITE | MEM_ALIGNED
_FIXED_R: Final = ARG_PTR_TO_FIXED_SIZE_MEM
_SK_LOOKUP: Final = (ARG_PTR_TO_CTX, _MEM_R, ARG_CONST_SIZE, ARG_ANYTHING, ARG_ANYTHING)
_DYNPTR_W: Final = ARG_PTR_TO_DYNPTR | MEM_UNINIT | MEM_WRITE

_PROTOS: Final = (
    # What the kernel's base set gives everyone.
    _row(CAP_NONE, "map_lookup_elem", RET_PTR_TO_MAP_VALUE_OR_NULL, ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY, flags="pkt"),
    _row(
        CAP_NONE,
        "map_update_elem",
        RET_INTEGER,
        ARG_CONST_MAP_PTR,
        ARG_PTR_TO_MAP_KEY,
        ARG_PTR_TO_MAP_VALUE,
        ARG_ANYTHING,
        flags="pkt",
    ),
    _row(CAP_NONE, "map_delete_elem", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY, flags="pkt"),
    _row(CAP_NONE, "map_push_elem", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_VALUE, ARG_ANYTHING, flags="pkt"),
    _row(CAP_NONE, "map_pop_elem", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_VALUE | MEM_UNINIT | MEM_WRITE),
    _row(CAP_NONE, "map_peek_elem", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_VALUE | MEM_UNINIT | MEM_WRITE),
    _row(
        CAP_NONE,
        "map_lookup_percpu_elem",
        RET_PTR_TO_MAP_VALUE_OR_NULL,
        ARG_CONST_MAP_PTR,
        ARG_PTR_TO_MAP_KEY,
        ARG_ANYTHING,
        flags="pkt",
    ),
    _row(CAP_NONE, "get_prandom_u32", RET_INTEGER),
    _row(CAP_NONE, "get_smp_processor_id", RET_INTEGER, flags="fastcall"),
    _row(CAP_NONE, "get_numa_node_id", RET_INTEGER),
    _row(CAP_NONE, "tail_call", RET_VOID, ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING),
    _row(CAP_NONE, "ktime_get_ns", RET_INTEGER),
    _row(CAP_NONE, "ktime_get_boot_ns", RET_INTEGER),
    _row(CAP_NONE, "ktime_get_tai_ns", RET_INTEGER),
    _row(CAP_NONE, "get_current_pid_tgid", RET_INTEGER),
    _row(CAP_NONE, "get_current_uid_gid", RET_INTEGER),
    _row(CAP_NONE, "get_ns_current_pid_tgid", RET_INTEGER, ARG_ANYTHING, ARG_ANYTHING, _MEM_W, ARG_CONST_SIZE),
    _row(CAP_NONE, "ringbuf_output", RET_INTEGER, ARG_CONST_MAP_PTR, _MEM_R, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING),
    _row(
        CAP_NONE, "ringbuf_reserve", RET_PTR_TO_RINGBUF_MEM_OR_NULL, ARG_CONST_MAP_PTR, ARG_CONST_ALLOC_SIZE_OR_ZERO, ARG_ANYTHING
    ),
    _row(CAP_NONE, "ringbuf_submit", RET_VOID, ARG_PTR_TO_RINGBUF_MEM | OBJ_RELEASE, ARG_ANYTHING),
    _row(CAP_NONE, "ringbuf_discard", RET_VOID, ARG_PTR_TO_RINGBUF_MEM | OBJ_RELEASE, ARG_ANYTHING),
    _row(CAP_NONE, "ringbuf_query", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_ANYTHING),
    _row(CAP_NONE, "strncmp", RET_INTEGER, _MEM_R, ARG_CONST_SIZE, ARG_PTR_TO_CONST_STR),
    _row(CAP_NONE, "strtol", RET_INTEGER, _MEM_R, ARG_CONST_SIZE, ARG_ANYTHING, _LONG_W, fixed_size=8),
    _row(CAP_NONE, "strtoul", RET_INTEGER, _MEM_R, ARG_CONST_SIZE, ARG_ANYTHING, _LONG_W, fixed_size=8),
    # The socket filter's own.
    _row(CAP_NONE, "skb_load_bytes", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, _MEM_W, ARG_CONST_SIZE),
    _row(CAP_NONE, "skb_load_bytes_relative", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, _MEM_W, ARG_CONST_SIZE, ARG_ANYTHING),
    _row(CAP_NONE, "get_socket_cookie", RET_INTEGER, ARG_PTR_TO_CTX),
    _row(CAP_NONE, "get_socket_uid", RET_INTEGER, ARG_PTR_TO_CTX),
    _row(
        CAP_NONE,
        "perf_event_output",
        RET_INTEGER,
        ARG_PTR_TO_CTX,
        ARG_CONST_MAP_PTR,
        ARG_ANYTHING,
        _MEM_R,
        ARG_CONST_SIZE_OR_ZERO,
        flags="gpl",
    ),
    _row(CAP_NONE, "ktime_get_coarse_ns", RET_INTEGER),
    _row(CAP_NONE, "get_netns_cookie", RET_INTEGER, ARG_PTR_TO_CTX | PTR_MAYBE_NULL),
    # The base set's part for CAP_BPF.
    _row(CAP_BPF, "get_cgroup_classid", RET_INTEGER),
    _row(CAP_BPF, "current_task_under_cgroup", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_ANYTHING),
    _row(CAP_BPF, "spin_lock", RET_VOID, ARG_PTR_TO_SPIN_LOCK),
    _row(CAP_BPF, "spin_unlock", RET_VOID, ARG_PTR_TO_SPIN_LOCK),
    _row(CAP_BPF, "jiffies64", RET_INTEGER),
    _row(CAP_BPF, "get_current_cgroup_id", RET_INTEGER),
    _row(CAP_BPF, "get_current_ancestor_cgroup_id", RET_INTEGER, ARG_ANYTHING),
    _row(CAP_BPF, "per_cpu_ptr", RET_PTR_TO_MEM_OR_BTF_ID | PTR_MAYBE_NULL | MEM_RDONLY, ARG_PTR_TO_PERCPU_BTF_ID, ARG_ANYTHING),
    _row(CAP_BPF, "this_cpu_ptr", RET_PTR_TO_MEM_OR_BTF_ID | MEM_RDONLY, ARG_PTR_TO_PERCPU_BTF_ID),
    _row(
        CAP_BPF,
        "task_storage_get",
        RET_PTR_TO_MAP_VALUE_OR_NULL,
        ARG_CONST_MAP_PTR,
        ARG_PTR_TO_BTF_ID_OR_NULL,
        ARG_PTR_TO_MAP_VALUE_OR_NULL,
        ARG_ANYTHING,
        arg_btf="task_struct",
    ),
    _row(CAP_BPF, "task_storage_delete", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_OR_NULL, arg_btf="task_struct"),
    _row(
        CAP_BPF,
        "cgrp_storage_get",
        RET_PTR_TO_MAP_VALUE_OR_NULL,
        ARG_CONST_MAP_PTR,
        ARG_PTR_TO_BTF_ID_OR_NULL,
        ARG_PTR_TO_MAP_VALUE_OR_NULL,
        ARG_ANYTHING,
        arg_btf="cgroup",
    ),
    _row(CAP_BPF, "cgrp_storage_delete", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_OR_NULL, arg_btf="cgroup"),
    _row(CAP_BPF, "for_each_map_elem", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_PTR_TO_FUNC, ARG_PTR_TO_STACK_OR_NULL, ARG_ANYTHING),
    _row(CAP_BPF, "loop", RET_INTEGER, ARG_ANYTHING, ARG_PTR_TO_FUNC, ARG_PTR_TO_STACK_OR_NULL, ARG_ANYTHING),
    _row(CAP_BPF, "timer_init", RET_INTEGER, ARG_PTR_TO_TIMER, ARG_CONST_MAP_PTR, ARG_ANYTHING, flags="gpl"),
    _row(CAP_BPF, "timer_set_callback", RET_INTEGER, ARG_PTR_TO_TIMER, ARG_PTR_TO_FUNC, flags="gpl"),
    _row(CAP_BPF, "timer_start", RET_INTEGER, ARG_PTR_TO_TIMER, ARG_ANYTHING, ARG_ANYTHING, flags="gpl"),
    _row(CAP_BPF, "timer_cancel", RET_INTEGER, ARG_PTR_TO_TIMER, flags="gpl"),
    _row(CAP_BPF, "kptr_xchg", RET_PTR_TO_BTF_ID_OR_NULL, ARG_KPTR_XCHG_DEST, ARG_PTR_TO_BTF_ID_OR_NULL | OBJ_RELEASE),
    _row(
        CAP_BPF,
        "dynptr_from_mem",
        RET_INTEGER,
        ARG_PTR_TO_UNINIT_MEM,
        ARG_CONST_SIZE_OR_ZERO,
        ARG_ANYTHING,
        _DYNPTR_W | DYNPTR_TYPE_LOCAL,
    ),
    _row(
        CAP_BPF,
        "dynptr_read",
        RET_INTEGER,
        _MEM_W,
        ARG_CONST_SIZE_OR_ZERO,
        ARG_PTR_TO_DYNPTR | MEM_RDONLY,
        ARG_ANYTHING,
        ARG_ANYTHING,
    ),
    _row(
        CAP_BPF,
        "dynptr_write",
        RET_INTEGER,
        ARG_PTR_TO_DYNPTR | MEM_RDONLY,
        ARG_ANYTHING,
        _MEM_R,
        ARG_CONST_SIZE_OR_ZERO,
        ARG_ANYTHING,
    ),
    _row(
        CAP_BPF,
        "dynptr_data",
        RET_PTR_TO_DYNPTR_MEM_OR_NULL,
        ARG_PTR_TO_DYNPTR | MEM_RDONLY,
        ARG_ANYTHING,
        ARG_CONST_ALLOC_SIZE_OR_ZERO,
    ),
    _row(
        CAP_BPF,
        "ringbuf_reserve_dynptr",
        RET_INTEGER,
        ARG_CONST_MAP_PTR,
        ARG_ANYTHING,
        ARG_ANYTHING,
        _DYNPTR_W | DYNPTR_TYPE_RINGBUF,
    ),
    _row(CAP_BPF, "ringbuf_submit_dynptr", RET_VOID, ARG_PTR_TO_DYNPTR | DYNPTR_TYPE_RINGBUF | OBJ_RELEASE, ARG_ANYTHING),
    _row(CAP_BPF, "ringbuf_discard_dynptr", RET_VOID, ARG_PTR_TO_DYNPTR | DYNPTR_TYPE_RINGBUF | OBJ_RELEASE, ARG_ANYTHING),
    _row(CAP_BPF, "user_ringbuf_drain", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_PTR_TO_FUNC, ARG_PTR_TO_STACK_OR_NULL, ARG_ANYTHING),
    # The base set's part for CAP_PERFMON.
    _row(CAP_PERFMON, "trace_printk", RET_INTEGER, _MEM_R, ARG_CONST_SIZE, flags="gpl"),
    _row(CAP_PERFMON, "get_current_comm", RET_INTEGER, _MEM_W, ARG_CONST_SIZE),
    _row(CAP_PERFMON, "perf_event_read", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_ANYTHING, flags="gpl"),
    _row(CAP_PERFMON, "get_current_task", RET_INTEGER, flags="gpl"),
    _row(CAP_PERFMON, "perf_event_read_value", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_ANYTHING, _MEM_W, ARG_CONST_SIZE, flags="gpl"),
    _row(CAP_PERFMON, "send_signal", RET_INTEGER, ARG_ANYTHING),
    _row(CAP_PERFMON, "send_signal_thread", RET_INTEGER, ARG_ANYTHING),
    _row(CAP_PERFMON, "probe_read_user", RET_INTEGER, _MEM_W, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, flags="gpl"),
    _row(CAP_PERFMON, "probe_read_kernel", RET_INTEGER, _MEM_W, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, flags="gpl"),
    _row(CAP_PERFMON, "probe_read_user_str", RET_INTEGER, _MEM_W, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, flags="gpl"),
    _row(CAP_PERFMON, "probe_read_kernel_str", RET_INTEGER, _MEM_W, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, flags="gpl"),
    *(
        _row(CAP_PERFMON, f"skc_to_{_kind}", RET_PTR_TO_BTF_ID_OR_NULL, ARG_PTR_TO_BTF_ID_SOCK_COMMON, ret_btf=_kind)
        for _kind in ("tcp6_sock", "tcp_sock", "tcp_timewait_sock", "tcp_request_sock", "udp6_sock", "unix_sock")
    ),
    _row(CAP_PERFMON, "skc_to_mptcp_sock", RET_PTR_TO_BTF_ID_OR_NULL, ARG_PTR_TO_SOCK_COMMON, ret_btf="mptcp_sock"),
    _row(
        CAP_PERFMON,
        "get_task_stack",
        RET_INTEGER,
        ARG_PTR_TO_BTF_ID,
        _MEM_W,
        ARG_CONST_SIZE_OR_ZERO,
        ARG_ANYTHING,
        arg_btf="task_struct",
    ),
    _row(CAP_PERFMON, "copy_from_user", RET_INTEGER, _MEM_W, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, flags="sleep"),
    _row(
        CAP_PERFMON,
        "copy_from_user_task",
        RET_INTEGER,
        _MEM_W,
        ARG_CONST_SIZE_OR_ZERO,
        ARG_ANYTHING,
        ARG_PTR_TO_BTF_ID,
        ARG_ANYTHING,
        flags="gpl sleep",
        arg_btf="task_struct",
    ),
    _row(
        CAP_PERFMON, "snprintf_btf", RET_INTEGER, ARG_PTR_TO_MEM | MEM_WRITE, ARG_CONST_SIZE, _MEM_R, ARG_CONST_SIZE, ARG_ANYTHING
    ),
    _row(CAP_PERFMON, "get_current_task_btf", RET_PTR_TO_BTF_ID_TRUSTED, flags="gpl", ret_btf="task_struct"),
    _row(
        CAP_PERFMON,
        "snprintf",
        RET_INTEGER,
        ARG_PTR_TO_MEM_OR_NULL | MEM_WRITE,
        ARG_CONST_SIZE_OR_ZERO,
        ARG_PTR_TO_CONST_STR,
        _MEM_R_OR_NULL,
        ARG_CONST_SIZE_OR_ZERO,
        flags="gpl",
    ),
    _row(
        CAP_PERFMON, "task_pt_regs", RET_PTR_TO_BTF_ID, ARG_PTR_TO_BTF_ID, flags="gpl", ret_btf="pt_regs", arg_btf="task_struct"
    ),
    _row(CAP_PERFMON, "get_branch_snapshot", RET_INTEGER, _MEM_W, ARG_CONST_SIZE_OR_ZERO, flags="gpl"),
    _row(CAP_PERFMON, "trace_vprintk", RET_INTEGER, _MEM_R, ARG_CONST_SIZE, _MEM_R_OR_NULL, ARG_CONST_SIZE_OR_ZERO, flags="gpl"),
    _row(
        CAP_PERFMON,
        "find_vma",
        RET_INTEGER,
        ARG_PTR_TO_BTF_ID,
        ARG_ANYTHING,
        ARG_PTR_TO_FUNC,
        ARG_PTR_TO_STACK_OR_NULL,
        ARG_ANYTHING,
        arg_btf="task_struct",
    ),
    # Of other program types: the packet, its metadata and checksums.
    _row(
        None, "skb_store_bytes", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, _MEM_R, ARG_CONST_SIZE, ARG_ANYTHING, flags="changes"
    ),
    _row(None, "l3_csum_replace", RET_INTEGER, ARG_PTR_TO_CTX, *[ARG_ANYTHING] * 4, flags="changes"),
    _row(None, "l4_csum_replace", RET_INTEGER, ARG_PTR_TO_CTX, *[ARG_ANYTHING] * 4, flags="changes"),
    _row(None, "clone_redirect", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, flags="changes"),
    _row(None, "skb_vlan_push", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, flags="changes"),
    _row(None, "skb_vlan_pop", RET_INTEGER, ARG_PTR_TO_CTX, flags="changes"),
    _row(None, "skb_change_proto", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, flags="changes"),
    _row(None, "skb_change_type", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING),
    _row(None, "skb_change_tail", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, flags="changes"),
    _row(None, "skb_change_head", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, flags="changes"),
    _row(None, "skb_pull_data", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, flags="changes"),
    _row(None, "skb_adjust_room", RET_INTEGER, ARG_PTR_TO_CTX, *[ARG_ANYTHING] * 3, flags="changes"),
    _row(None, "csum_update", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING),
    _row(None, "csum_level", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING),
    _row(None, "csum_diff", RET_INTEGER, *[_MEM_R_OR_NULL, ARG_CONST_SIZE_OR_ZERO] * 2, ARG_ANYTHING, flags="pkt"),
    _row(None, "get_hash_recalc", RET_INTEGER, ARG_PTR_TO_CTX),
    _row(None, "set_hash_invalid", RET_INTEGER, ARG_PTR_TO_CTX),
    _row(None, "set_hash", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING),
    _row(None, "skb_ecn_set_ce", RET_INTEGER, ARG_PTR_TO_CTX),
    _row(None, "skb_set_tstamp", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING),
    _row(None, "skb_get_tunnel_key", RET_INTEGER, ARG_PTR_TO_CTX, _MEM_W, ARG_CONST_SIZE, ARG_ANYTHING),
    _row(None, "skb_set_tunnel_key", RET_INTEGER, ARG_PTR_TO_CTX, _MEM_R, ARG_CONST_SIZE, ARG_ANYTHING),
    _row(None, "skb_get_tunnel_opt", RET_INTEGER, ARG_PTR_TO_CTX, _MEM_W, ARG_CONST_SIZE),
    _row(None, "skb_set_tunnel_opt", RET_INTEGER, ARG_PTR_TO_CTX, _MEM_R, ARG_CONST_SIZE),
    _row(None, "skb_get_xfrm_state", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, _MEM_W, ARG_CONST_SIZE, ARG_ANYTHING),
    _row(None, "xdp_adjust_head", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, flags="changes"),
    _row(None, "xdp_adjust_meta", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, flags="changes"),
    _row(None, "xdp_adjust_tail", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, flags="changes"),
    _row(None, "xdp_get_buff_len", RET_INTEGER, ARG_PTR_TO_CTX),
    _row(None, "xdp_load_bytes", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, _MEM_W, ARG_CONST_SIZE),
    _row(None, "xdp_store_bytes", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, _MEM_R, ARG_CONST_SIZE),
    # Of other program types: routes, devices and cgroups.
    _row(None, "redirect", RET_INTEGER, ARG_ANYTHING, ARG_ANYTHING),
    _row(None, "redirect_map", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_ANYTHING),
    _row(None, "redirect_neigh", RET_INTEGER, ARG_ANYTHING, _MEM_R_OR_NULL, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING),
    _row(None, "redirect_peer", RET_INTEGER, ARG_ANYTHING, ARG_ANYTHING),
    _row(None, "get_route_realm", RET_INTEGER, ARG_PTR_TO_CTX),
    _row(None, "fib_lookup", RET_INTEGER, ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_WRITE, ARG_CONST_SIZE, ARG_ANYTHING, flags="gpl"),
    _row(None, "check_mtu", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING, _INT_RW, ARG_ANYTHING, ARG_ANYTHING, fixed_size=4),
    _row(None, "skb_under_cgroup", RET_INTEGER, ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING),
    _row(None, "skb_cgroup_classid", RET_INTEGER, ARG_PTR_TO_CTX),
    _row(None, "skb_cgroup_id", RET_INTEGER, ARG_PTR_TO_CTX),
    _row(None, "skb_ancestor_cgroup_id", RET_INTEGER, ARG_PTR_TO_CTX, ARG_ANYTHING),
    _row(None, "get_local_storage", RET_PTR_TO_MAP_VALUE, ARG_CONST_MAP_PTR, ARG_ANYTHING),
    # Of other program types: sockets.
    _row(None, "sk_lookup_tcp", RET_PTR_TO_SOCKET_OR_NULL, *_SK_LOOKUP, flags="pkt"),
    _row(None, "sk_lookup_udp", RET_PTR_TO_SOCKET_OR_NULL, *_SK_LOOKUP, flags="pkt"),
    _row(None, "skc_lookup_tcp", RET_PTR_TO_SOCK_COMMON_OR_NULL, *_SK_LOOKUP, flags="pkt"),
    _row(None, "sk_release", RET_INTEGER, ARG_PTR_TO_BTF_ID_SOCK_COMMON | OBJ_RELEASE),
    _row(None, "sk_fullsock", RET_PTR_TO_SOCKET_OR_NULL, ARG_PTR_TO_SOCK_COMMON),
    _row(None, "tcp_sock", RET_PTR_TO_TCP_SOCK_OR_NULL, ARG_PTR_TO_SOCK_COMMON),
    _row(None, "get_listener_sock", RET_PTR_TO_SOCKET_OR_NULL, ARG_PTR_TO_SOCK_COMMON),
    _row(None, "tcp_check_syncookie", RET_INTEGER, ARG_PTR_TO_BTF_ID_SOCK_COMMON, *[_MEM_R, ARG_CONST_SIZE] * 2, flags="pkt"),
    _row(None, "tcp_gen_syncookie", RET_INTEGER, ARG_PTR_TO_BTF_ID_SOCK_COMMON, *[_MEM_R, ARG_CONST_SIZE] * 2, flags="pkt"),
    _row(
        None, "tcp_raw_gen_syncookie_ipv4", RET_INTEGER, _FIXED_R, _MEM_R, ARG_CONST_SIZE_OR_ZERO, fixed_size=20, flags="gpl pkt"
    ),
    _row(
        None, "tcp_raw_gen_syncookie_ipv6", RET_INTEGER, _FIXED_R, _MEM_R, ARG_CONST_SIZE_OR_ZERO, fixed_size=40, flags="gpl pkt"
    ),
    _row(None, "tcp_raw_check_syncookie_ipv4", RET_INTEGER, _FIXED_R, _FIXED_R, fixed_size=20, flags="gpl pkt"),
    _row(None, "tcp_raw_check_syncookie_ipv6", RET_INTEGER, _FIXED_R, _FIXED_R, fixed_size=40, flags="gpl pkt"),
    _row(
        None,
        "sk_storage_get",
        RET_PTR_TO_MAP_VALUE_OR_NULL,
        ARG_CONST_MAP_PTR,
        ARG_PTR_TO_BTF_ID_SOCK_COMMON,
        ARG_PTR_TO_MAP_VALUE_OR_NULL,
        ARG_ANYTHING,
    ),
    _row(None, "sk_storage_delete", RET_INTEGER, ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_SOCK_COMMON),
    _row(None, "sk_assign", RET_INTEGER, ARG_PTR_TO_CTX, ARG_PTR_TO_BTF_ID_SOCK_COMMON, ARG_ANYTHING),
    _row(None, "sk_cgroup_id", RET_INTEGER, ARG_PTR_TO_BTF_ID_SOCK_COMMON),
    _row(None, "sk_ancestor_cgroup_id", RET_INTEGER, ARG_PTR_TO_BTF_ID_SOCK_COMMON, ARG_ANYTHING),
)

_PROTO_OF: Final = {p.id: p for p in _PROTOS}

HELPERS: Final[dict[int, HelperProto]] = {
    number: _PROTO_OF.get(number) or HelperProto(number, name, since) for number, (name, since) in enumerate(_NAMES)
}
"""Every helper by number, 0 (unspec) to 211."""

_TC_HELPERS: Final = (
    "skb_store_bytes l3_csum_replace l4_csum_replace clone_redirect skb_vlan_push skb_vlan_pop skb_get_tunnel_key "
    "skb_set_tunnel_key redirect get_route_realm csum_diff skb_get_tunnel_opt skb_set_tunnel_opt skb_change_proto "
    "skb_change_type skb_under_cgroup get_hash_recalc skb_change_tail skb_pull_data csum_update set_hash_invalid "
    "skb_change_head set_hash skb_adjust_room skb_get_xfrm_state fib_lookup skb_cgroup_id skb_ancestor_cgroup_id "
    "sk_lookup_tcp sk_lookup_udp sk_release sk_fullsock tcp_sock skb_ecn_set_ce get_listener_sock skc_lookup_tcp "
    "tcp_check_syncookie sk_storage_get sk_storage_delete tcp_gen_syncookie sk_assign csum_level skb_cgroup_classid "
    "redirect_neigh redirect_peer check_mtu skb_set_tstamp tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 "
    "tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6"
)
_XDP_HELPERS: Final = (
    "redirect csum_diff xdp_adjust_head redirect_map xdp_adjust_meta xdp_adjust_tail fib_lookup sk_lookup_tcp sk_lookup_udp "
    "sk_release skc_lookup_tcp tcp_check_syncookie tcp_gen_syncookie check_mtu xdp_get_buff_len xdp_load_bytes "
    "xdp_store_bytes tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4 "
    "tcp_raw_check_syncookie_ipv6"
)
_CGROUP_SKB_HELPERS: Final = (
    "skb_cgroup_id get_local_storage skb_ancestor_cgroup_id sk_lookup_tcp sk_lookup_udp sk_release sk_fullsock tcp_sock "
    "skb_ecn_set_ce get_listener_sock skc_lookup_tcp sk_storage_get sk_storage_delete sk_cgroup_id sk_ancestor_cgroup_id"
)


def _ids(names: str) -> frozenset[int]:
    return frozenset(FUNC_IDS[name] for name in names.split())


_MORE: Final[dict[int, frozenset[int]]] = {
    ProgType.SCHED_CLS: _ids(_TC_HELPERS),
    ProgType.SCHED_ACT: _ids(_TC_HELPERS),
    ProgType.XDP: _ids(_XDP_HELPERS),
    ProgType.CGROUP_SKB: _ids(_CGROUP_SKB_HELPERS),
}
_FEWER: Final[dict[int, frozenset[int]]] = {
    ProgType.XDP: _ids("skb_load_bytes skb_load_bytes_relative get_socket_cookie get_socket_uid get_netns_cookie"),
}


_CLASSID: Final = HELPERS[FUNC_IDS["get_cgroup_classid"]]
_OWN: Final[dict[tuple[int, int], HelperProto]] = {
    (prog_type, _CLASSID.id): replace(_CLASSID, cap=None, args=(ARG_PTR_TO_CTX,))  # the packet's, not the running task's
    for prog_type in (ProgType.SCHED_CLS, ProgType.SCHED_ACT)
}


def helper_proto(prog_type: int, func_id: int) -> HelperProto:
    """The helper's prototype as that program type gets it."""
    return _OWN.get((prog_type, func_id)) or HELPERS[func_id]


def helper_cap(prog_type: int, func_id: int) -> str | None:
    """The capability (or "") with which a program of that type gets the helper; None where it never does."""
    if func_id in _MORE.get(prog_type, ()):
        return CAP_NONE
    if func_id in _FEWER.get(prog_type, ()):
        return None
    proto = HELPERS.get(func_id)
    return proto.cap if proto is not None else None
