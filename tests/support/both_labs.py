"""A case in a packet laboratory, on the simulator and on the running kernel, and the two logs compared."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from netbpf.host.choose import get_host
from netbpf.host.lab import Lab
from support.packet_grid import MAC

Log = Callable[[str, Callable[[], Any]], Any]
Case = Callable[[Lab, Log], None]


def same(case: Case, *, kind: str = "tap", addresses: tuple[str, ...] = (), mtu: int = 9000) -> None:
    """Run on each host; every step's result, or the errno and class of its exception, must be equal."""
    logs = []
    for backend in ("sim", "kernel"):
        lines: list[str] = []
        with get_host(backend).lab(kind=kind, mac=MAC, mtu=mtu) as lab:
            for address in addresses:
                lab.add_address(address)
            case(lab, logger(lines))
        logs.append(lines)
    sim, kernel = logs
    wrong = [f"sim    {a}\nkernel {b}" for a, b in zip(sim, kernel, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {len(sim)} differ:\n" + "\n".join(wrong[:20])


def logger(lines: list[str]) -> Log:
    """What notes the result of a step, or how it fails."""

    def log(label: str, step: Callable[[], Any]) -> Any:
        try:
            result = step()
            lines.append(f"{label}: {result!r}")
        except OSError as e:
            result = None
            base = next(c for c in type(e).__mro__ if c.__module__ == "builtins")
            lines.append(f"{label}: {base.__name__} {errno.errorcode.get(e.errno or 0)}")
        return result

    return log
