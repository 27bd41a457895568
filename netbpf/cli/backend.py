"""What ``--backend kernel`` and ``--backend both`` say at the end of a command: notes on frames, and the first difference."""

from __future__ import annotations

import sys
from typing import Final

from netbpf.replay.lab_session import LabSession

EX_DIFFERENCE: Final = 1


def told_at_end(session: LabSession, *, quiet: bool = False) -> int:
    """Print them; EX_DIFFERENCE where simulator and kernel differ, else 0."""
    found = session.finish()
    for note in session.notes():
        print(f"netbpf: {note}", file=sys.stderr)
    if found is not None:
        print(f"netbpf: {found}", file=sys.stderr)
        return EX_DIFFERENCE
    if session.backend == "both" and not quiet:
        print("simulator and kernel agree: every packet, every map entry, every line of the log")
    return 0
