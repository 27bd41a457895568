"""A socket's filter: attach, detach, lock, and the errnos of each. Shared by every kind of simulated socket.

The options are SO_ATTACH_BPF, SO_ATTACH_FILTER, SO_DETACH_FILTER (SO_DETACH_BPF is the same number), SO_LOCK_FILTER and
SO_GET_FILTER. A filter of eBPF holds its program: closing the program's descriptor does not unload it. A classic one is
translated and proved here and belongs to the socket alone.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.prog_types import ProgType
from netbpf.engine.base import Loaded
from netbpf.errors import BpfError
from netbpf.host.filter_stats import FilterStats
from netbpf.host.sim.machine import Machine
from netbpf.host.sim.objects import KObject, ProgObject
from netbpf.isa.classic import BPF_MAXINSNS, ClassicProgram, decode_classic, encode_classic
from netbpf.packet.skbuff import SkBuff

PROG_HEADER_BYTES: Final = 96  # struct bpf_prog without its instructions, as a socket's option memory is charged for it


class SocketFilter:
    """What struct sock keeps of its filter."""

    __slots__ = ("_charged", "_charges", "_loaded", "_machine", "classic", "locked", "prog", "stats")

    def __init__(self, machine: Machine, *, charges: bool = True) -> None:
        """``charges``: whether the program counts against the option memory of a socket."""
        self._machine, self._charges = machine, charges
        self.prog: ProgObject | None = None  # where an eBPF program is attached
        self.classic: ClassicProgram = ()  # where a classic one is
        self.locked = False
        self.stats = FilterStats()  # of the filter that is there, and of those before it
        self._loaded: Loaded | None = None
        self._charged = 0

    def attach(self, obj: KObject) -> None:
        """sk_attach_bpf: the program takes the place of the one there. Raises BpfError(EINVAL, ENOMEM)."""
        prog = self.check_program(obj)
        size = self._charge(len(prog.insns))
        prog.hold()
        self._replace(prog.loaded(self._machine.engine, self._machine.env), size)
        self.prog = prog

    @staticmethod
    def check_program(obj: KObject) -> ProgObject:
        """Raises BpfError(EINVAL) for what is no socket filter."""
        if not isinstance(obj, ProgObject) or obj.program.prog_type != ProgType.SOCKET_FILTER:
            raise BpfError(errno.EINVAL)
        return obj

    def attach_classic(self, raw: bytes) -> None:
        """sk_attach_filter on the bytes of ``struct sock_filter[]``. Raises BpfError(EINVAL, ENOMEM)."""
        insns = decode_classic(raw)
        loaded, length = _prove(self._machine, insns)
        self._replace(loaded, self._charge(length))
        self.classic = insns

    @staticmethod
    def check_classic_length(count: int) -> None:
        """Raises BpfError(EINVAL) for a number of classic instructions that no filter has."""
        if not 0 < count <= BPF_MAXINSNS:
            raise BpfError(errno.EINVAL)

    def share(self, other: SocketFilter) -> None:
        """The other's filter here too, as a socket cloned from it has it."""
        if other.prog is not None:
            other.prog.hold()
        self._replace(other._loaded, other._charged)
        self.prog, self.classic, self.locked = other.prog, other.classic, other.locked

    def check_unlocked(self) -> None:
        """Raises BpfError(EPERM) once SO_LOCK_FILTER was set."""
        if self.locked:
            raise BpfError(errno.EPERM)

    def detach(self) -> None:
        """Raises BpfError(EPERM, ENOENT)."""
        self.check_unlocked()
        if self._loaded is None:
            raise BpfError(errno.ENOENT)
        self.release()

    def lock(self, on: bool) -> None:
        """There is no way back: BpfError(EPERM) on unlocking."""
        if self.locked and not on:
            raise BpfError(errno.EPERM)
        self.locked = on

    def get_classic(self, room: int) -> tuple[int, bytes]:
        """sk_get_filter: (number of instructions, their bytes). ``room`` counts instructions; 0 only asks how many there are.

        Raises BpfError(EACCES) for an eBPF program, EINVAL where they do not fit.
        """
        if self.prog is not None:
            raise BpfError(errno.EACCES)
        count = len(self.classic)
        if room and room < count:
            raise BpfError(errno.EINVAL)
        return count, encode_classic(self.classic) if room else b""

    @property
    def is_attached(self) -> bool:
        return self._loaded is not None

    @property
    def charged(self) -> int:
        """Bytes of option memory that it takes."""
        return self._charged

    def run(self, skb: SkBuff) -> int:
        """The verdict: bytes to keep, u32. All there are where there is no filter."""
        if self._loaded is None:
            return skb.len
        skb.cb[:] = bytes(20)
        verdict = self._loaded.run_one(skb) & 0xFFFF_FFFF
        self.stats.count(verdict, skb.len)
        return verdict

    def release(self) -> None:
        """The filter, or its socket, is gone."""
        self._replace(None, 0)

    @property
    def loaded(self) -> Loaded | None:
        """What runs on packets."""
        return self._loaded

    def _charge(self, insn_count: int) -> int:
        """Bytes of option memory for a program, while the one before it is still charged. Raises BpfError(ENOMEM)."""
        size, limit = PROG_HEADER_BYTES + 8 * insn_count, self._machine.sysctl.optmem_max
        if size > limit or (self._charges and self._charged + size >= limit):
            raise BpfError(errno.ENOMEM)
        return size if self._charges else 0

    def _replace(self, loaded: Loaded | None, charged: int) -> None:
        if self.prog is not None:
            self.prog.drop()
        self.prog, self.classic, self._loaded, self._charged = None, (), loaded, charged


def _prove(machine: Machine, insns: ClassicProgram) -> tuple[Loaded, int]:
    """A classic filter checked, translated, proved and made live; and the length of the translation. Raises BpfError(EINVAL)."""
    from netbpf.engine.choose import get_engine
    from netbpf.sources.cbpf import to_spec
    from netbpf.verifier.classic import prove_classic

    spec = to_spec(insns)
    return get_engine(machine.engine).load(prove_classic(spec), machine.env), len(spec.insns)
