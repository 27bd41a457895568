"""What a socket's filter did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(slots=True)
class FilterStats:
    """``packets`` is what the program judged: ``accepted`` and ``dropped`` together; ``trimmed`` are accepted packets that lost
    bytes to the verdict. ``kernel_drops`` are packets lost before anybody could read them (a receive buffer or ring full), as
    PACKET_STATISTICS counts them. A number that nobody can tell is None."""

    packets: int | None = 0
    accepted: int | None = 0
    dropped: int | None = 0
    trimmed: int | None = 0
    kernel_drops: int | None = 0

    def count(self, verdict: int, length: int) -> None:
        """One packet of ``length`` bytes, judged ``verdict`` (0 drops)."""
        self.packets = (self.packets or 0) + 1
        if not verdict:
            self.dropped = (self.dropped or 0) + 1
            return
        self.accepted = (self.accepted or 0) + 1
        self.trimmed = (self.trimmed or 0) + (verdict < length)

    def copy(self) -> FilterStats:
        """As it stands now."""
        return replace(self)
