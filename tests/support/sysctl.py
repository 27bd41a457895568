"""kernel.unprivileged_bpf_disabled set for a while, one test process at a time, and put back."""

from __future__ import annotations

from pathlib import Path

from kernel_oracle import unprivileged_bpf

SYSCTL = Path("/proc/sys/kernel/unprivileged_bpf_disabled")

__all__ = ["SYSCTL", "unprivileged_bpf"]
