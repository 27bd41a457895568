"""The shape of a helper's body, and what several of them share."""

from __future__ import annotations

from collections.abc import Callable

from netbpf.engine.interp.machine import Machine

Body = Callable[[Machine, int, int, int, int, int], int]
"""(machine, R1, R2, R3, R4, R5) -> R0; negative results are -errno."""
