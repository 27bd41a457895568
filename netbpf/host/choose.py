"""Hosts by the name ``--backend`` gives them. Imports only the one asked for."""

from __future__ import annotations

from typing import Final

from netbpf.errors import UsageError
from netbpf.host.base import Host

HOSTS: Final = ("sim", "kernel")


def get_host(name: str = "sim") -> Host:
    """``sim``: ours, unprivileged; ``kernel``: the running one. Raises UsageError for another name."""
    if name == "sim":
        from netbpf.host.sim.host import SimHost

        return SimHost()
    if name == "kernel":
        from netbpf.host.linux.host import LinuxHost

        return LinuxHost()
    raise UsageError(f"a backend is one of {', '.join(HOSTS)}, not {name!r}")
