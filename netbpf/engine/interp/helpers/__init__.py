"""What helpers do. A body takes the machine and R1 to R5 and returns R0, any int: it is cut to 64 bits.

``BODIES`` has them by number; a helper that is not there is refused by name when a program that calls it is loaded. bpf_tail_call
(12) is an instruction's business, in ``call_ops``.
"""

from __future__ import annotations

from typing import Final

from netbpf.abi.helpers import FUNC_IDS
from netbpf.engine.interp.helpers import classic, control, dynptrs, maps, packets, probes, ringbufs, strings, system, tasks
from netbpf.engine.interp.helpers.body import Body

_MODULES: Final = (control, dynptrs, maps, packets, probes, ringbufs, strings, system, tasks)

BODIES: Final[dict[int, Body]] = {
    **{FUNC_IDS[name]: body for module in _MODULES for name, body in module.BODIES.items()},
    **classic.NUMBERED_BODIES,
}
"""Every helper body by number."""

__all__ = ["BODIES", "Body"]
