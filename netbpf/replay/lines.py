"""The lines that end a replay. Imports nothing: the quick start says them, too."""

from __future__ import annotations


def totals_lines(counts: tuple[int, int, int, int, int], trace_seconds: float, seconds: float, engine: str) -> str:
    """``counts``: packets, bytes, accepted, trimmed, dropped; ``seconds`` is how long the replay took."""
    packets, size, accepted, trimmed, dropped = counts
    rate = f"{si(packets / seconds)} packets/s" if seconds > 0 else "no time at all"
    return (
        f"{packets} packets, {size} bytes, {trace_seconds:.3f} s of trace\n"
        f"{accepted} accepted ({trimmed} trimmed), {dropped} dropped\n"
        f"engine {engine}: {seconds:.3f} s, {rate}"
    )


def si(value: float) -> str:
    """A number with two decimals and a unit's prefix."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.2f} {unit}"
    return f"{value:.0f} "
