"""Packets whose verdict depends on who looks: libpcap at the capture file, or the kernel at a packet socket; and why.

Both views are run over the same records. Where the verdicts differ, both runs are walked again on the interpreter, statement by
statement, and the first value that is not the same in both is told, with what the views know of the packet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from netbpf.abi.net import ETH_P_8021AD, LINK_HEADER_BYTES, LINKTYPE_ETHERNET, SKF_AD_OFF
from netbpf.engine.base import Loaded
from netbpf.ints import u32
from netbpf.packet.batch import PacketBatch
from netbpf.packet.device import DEFAULT_DEVICE
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff
from netbpf.program import FILE_VIEW, SOCKET_VIEW, VIEWS, ProgramSpec

MAX_STEPS: Final = 1_000_000  # a walk that is longer tells no difference


class Step(NamedTuple):
    """A statement about to run: its text, and the registers A and X (R0 and R7) or, of an eBPF program, R0 to R9."""

    text: str
    registers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A packet that the views disagree about. ``at`` is the statement that parted them, empty where both ran alike or the
    socket never got the packet; ``reasons`` say what the views know of the packet, most telling first."""

    number: int
    file: int
    socket: int
    at: str
    reasons: tuple[str, ...]


class TwoViews:
    """One program in both views, for packets of one link type. ``in_file`` and ``at_socket`` are its specs."""

    def __init__(self, in_file: ProgramSpec, at_socket: ProgramSpec) -> None:
        from netbpf.replay.session import Session

        self.specs = {FILE_VIEW: in_file, SOCKET_VIEW: at_socket}
        self._fast = {view: Session(spec) for view, spec in self.specs.items()}
        self._walked: dict[str, Loaded] = {}
        self.compiled_twice = in_file.classic != at_socket.classic

    def differences(self, batch: PacketBatch) -> Iterator[Difference]:
        """The packets of a batch whose verdicts differ."""
        answers = {view: session.loaded.run(batch).verdict for view, session in self._fast.items()}
        for i, (file, socket) in enumerate(zip(answers[FILE_VIEW], answers[SOCKET_VIEW], strict=True)):
            if file != socket:
                yield self._explained(batch.record(i), file, socket)

    def _explained(self, record: Record, file: int, socket: int) -> Difference:
        skb = receive(record)
        reasons = list(_facts(record, skb))
        at = ""
        if skb is not None and not self.compiled_twice:
            at = self._parted(record, reasons)
        return Difference(record.number, file, socket, at, tuple(reasons))

    def _parted(self, record: Record, reasons: list[str]) -> str:
        """The statement behind which the two walks are not alike."""
        walks = [self._walk(view, record) for view in (FILE_VIEW, SOCKET_VIEW)]
        previous = ""
        for mine, theirs in zip(*walks, strict=False):
            if mine != theirs:
                told = _changed(mine, theirs)
                if told and previous:
                    reasons.insert(0, told)
                return previous
            previous = mine.text
        lengths = [len(walk) for walk in walks]
        if lengths[0] != lengths[1] and previous:
            where = "in the file" if lengths[0] < lengths[1] else "at the socket"
            outside = "outside the packet or, in a file, ancillary data" if _is_ancillary(previous) else "outside the packet"
            reasons.insert(0, f"this load ends the program with 0 {where}: {outside}")
        return previous

    def _walk(self, view: str, record: Record) -> list[Step]:
        skb = receive(record, DEFAULT_DEVICE, VIEWS[view])
        if skb is None:
            return []
        loaded, spec = self._interpreted(view), self.specs[view]
        marks = _marks(spec)
        registers = (0, 7) if spec.classic else tuple(range(10))
        steps: list[Step] = []

        def hook(pc: int, regs: list[int]) -> None:
            text = marks.get(pc)
            if text is not None and len(steps) < MAX_STEPS:
                steps.append(Step(text, tuple(regs[r] for r in registers)))

        loaded.watch(hook)
        loaded.run_one(skb)
        loaded.watch(None)
        return steps

    def _interpreted(self, view: str) -> Any:
        if view not in self._walked:
            from netbpf.replay.session import Session

            self._walked[view] = Session(self.specs[view], engine="interp").loaded
        return self._walked[view]


def _marks(spec: ProgramSpec) -> dict[int, str]:
    """pc -> the statement that begins there: a classic instruction, or one of eBPF."""
    if spec.classic:
        return dict(spec.source_lines)
    from netbpf.isa.cfg import insn_starts
    from netbpf.isa.disasm import format_insn

    insns = spec.insns
    return {pc: f"{pc}: {format_insn(insns[pc], insns[pc + 1] if pc + 1 < len(insns) else None)}" for pc in insn_starts(insns)}


def _changed(file: Step, socket: Step) -> str:
    """The value that differs, in both views."""
    for mine, theirs in zip(file.registers, socket.registers, strict=True):
        if mine != theirs:
            return f"{mine:#x} in the file, {theirs:#x} at the socket"
    return ""


def _is_ancillary(text: str) -> bool:
    number = text.rpartition("[")[2].rstrip("]")
    return not number.lstrip("-").isdigit() or u32(int(number)) >= u32(SKF_AD_OFF)


def _facts(record: Record, skb: SkBuff | None) -> Iterator[str]:
    """What the views know of a packet and not in the same way."""
    if skb is None:
        yield f"a frame of {max(record.wirelen, len(record.data))} bytes that the device or the kernel drops before any socket"
        return
    if skb.vlan_present:
        kind = "802.1ad" if skb.vlan_proto == ETH_P_8021AD else "802.1Q"
        yield (
            f"the {kind} tag (VLAN {skb.vlan_tci & 0xFFF}) is in the file's packet and beside the socket's: there the "
            f"inner type {skb.protocol:#06x} is at 12 and all behind it 4 bytes earlier"
        )
    if LINK_HEADER_BYTES.get(record.linktype) and record.linktype != LINKTYPE_ETHERNET:
        link = "has an Ethernet header in place of" if skb.network_header else "is without"
        yield f"the socket's packet {link} the capture's link header"
    in_file = receive(record, view="file")
    assert in_file is not None
    if in_file.len != skb.len and not skb.vlan_present:
        yield f"len is {in_file.len} in the file and {skb.len} at the socket"
