"""Capabilities, and what the kernel asks of a process before it loads a program of a type (maps: ``abi.maps``).

Tables only; the questions themselves are asked in ``host``.
"""

from __future__ import annotations

_NAMES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP "
    "CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER "
    "CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE "
    "CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP "
    "CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF "
    "CAP_CHECKPOINT_RESTORE"
)
CAPABILITIES: dict[str, int] = {name: number for number, name in enumerate(_NAMES.split())}
ALL_CAPS: frozenset[str] = frozenset(CAPABILITIES)

# A capability that another one implies: CAP_SYS_ADMIN stands in for these when bpf(2) asks.
IMPLIED_BY_SYS_ADMIN = frozenset({"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"})

# BPF_PROG_LOAD: what is asked on top of CAP_BPF (6.18 was asked type by type).
NET_ADMIN_PROG_TYPES = frozenset({3, 4, 6, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 22, 23, 25, 28, 32})
PERFMON_PROG_TYPES = frozenset({2, 5, 7, 17, 24, 26, 27, 28, 29})

# What a process that loads programs may be said to have, in words: None is everything.
CAP_SETS: dict[str, frozenset[str] | None] = {
    "all": None,
    "bpf": frozenset({"CAP_BPF", "CAP_NET_ADMIN"}),
    "none": frozenset(),
}
