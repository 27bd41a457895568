"""Throw-away network namespaces. One has no name and lives as long as the thread that made it and the descriptors opened in
it: nothing is left behind on any way out, not even after SIGKILL."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import Final

from netbpf.errors import BpfError
from netbpf.host.linux.syscalls import checked, libc
from netbpf.host.linux.worker import Worker

CLONE_NEWNET: Final = 0x4000_0000
RUN_NETNS: Final = "/run/netns"  # where ip-netns(8) keeps names
_IPV6_CONF: Final = Path("/proc/sys/net/ipv6/conf")


def enter_new_netns() -> None:
    """The calling thread gets a namespace of its own: lo only, down, IPv6 silent. Raises BpfError(EPERM)."""
    checked(libc.unshare(ctypes.c_int(CLONE_NEWNET)))
    silence_ipv6()


def enter_netns(name: str) -> None:
    """The calling thread goes to the namespace that ``ip netns`` calls ``name``. Raises BpfError(ENOENT, EPERM)."""
    try:
        with open(f"{RUN_NETNS}/{name}", "rb") as namespace:
            checked(libc.setns(ctypes.c_int(namespace.fileno()), ctypes.c_int(CLONE_NEWNET)))
    except FileNotFoundError as e:
        raise BpfError(e.errno or 0, f"ENOENT: no network namespace {name!r}") from None


def silence_ipv6() -> None:
    """No IPv6 on devices to come: a fresh one would send router solicitations into every count. Does nothing without IPv6."""
    for scope in ("all", "default"):
        with contextlib.suppress(FileNotFoundError):
            (_IPV6_CONF / scope / "disable_ipv6").write_text("1")


def netns_worker() -> Worker:
    """A thread in a throw-away namespace. Raises BpfError(EPERM)."""
    return Worker(enter_new_netns, "netbpf-netns")
