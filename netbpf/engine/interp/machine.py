"""The one mutable object of a run: registers, frames, address space, linked programs. Knows no opcode and no helper.

Programs are linked into one list of ops, so that pc names an instruction of any of them: the main program lies at 0, the
targets of tail calls behind it, each ended by an op that faults. An op is ``op(regs) -> next pc``; a pc below 0 ends the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from netbpf.engine.interp.context import Context, is_context
from netbpf.engine.interp.memory import (
    CODE_ADDRESS,
    CTX_ADDRESS,
    FRAME_NUMBERS,
    NUMBER_SHIFT,
    AddressSpace,
    Fault,
    MapWindow,
)
from netbpf.engine.limits import MAX_CALL_FRAMES, MAX_TAIL_CALL_CNT, MORE_FRAMES
from netbpf.engine.trace import TraceBuffer
from netbpf.env import Env
from netbpf.errors import EngineFault
from netbpf.ints import u64
from netbpf.isa.opcodes import MAX_BPF_STACK
from netbpf.maps.handle import map_struct
from netbpf.packet.skbuff import SkBuff
from netbpf.program import VerifiedProgram

if TYPE_CHECKING:
    from netbpf.maps.base import Map

Regs = list[int]
Op = Callable[[Regs], int]
Hook = Callable[[int, Regs], None]
"""Called with (pc, registers) before each instruction; it may read the registers, and change them."""

END_OF_RUN: Final = -1
BPF_MAX_LOOPS: Final = 8 * 1024 * 1024
FRAME_TOPS: Final = tuple((number << NUMBER_SHIFT) + MAX_BPF_STACK for number in FRAME_NUMBERS)
VIEW_FORMATS: Final[dict[int, Literal["B", "H", "I", "Q"]]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
FRESH_FRAME: Final = bytes(MAX_BPF_STACK)
FRESH_REGS: Final = (0, CTX_ADDRESS, 0, 0, 0, 0, 0, 0, 0, 0, FRAME_TOPS[0])
CLOBBERED: Final = (0xDEAD_0000_0000_0001,) * 5
"""What R1 to R5 hold after a helper: no address, so that a proof gone wrong shows."""


Linker = Callable[["Machine", VerifiedProgram], int]
"""Adds a program to a machine's ops and returns where it starts; the same place when asked again."""


class Record(NamedTuple):
    """A ring buffer record that a program has reserved: its ring, and where in the ring's memory it lies."""

    ring: Any
    offset: int


class Link(NamedTuple):
    """A program in the list of ops, from ``base`` on."""

    base: int
    program: VerifiedProgram


class MapHandle(NamedTuple):
    """A map as a program holds it in a register: ``address`` of its struct bpf_map, and its values."""

    map: Map
    address: int
    window: MapWindow


class Machine:
    """A loaded program's state between and during runs. ``loop`` runs ops from a pc until one ends the run.

    ``frame_views`` has, by size of an access and value of R10, the frame as an array of numbers of that size, in the machine's
    own order, which must be little-endian.
    """

    __slots__ = (
        "_handles",
        "context",
        "cpu",
        "env",
        "frame_bytes",
        "frame_views",
        "frames",
        "handles",
        "hook",
        "insns_left",
        "link",
        "links",
        "loop",
        "loops_left",
        "memory",
        "ops",
        "records",
        "regs",
        "skb",
        "tail_calls",
        "trace",
        "uses_may_goto",
        "uses_stack",
    )

    def __init__(self, env: Env, trace: TraceBuffer, prog_type: int, link: Linker) -> None:
        self.env, self.trace, self.cpu = env, trace, 0
        self.regs: Regs = list(FRESH_REGS)
        self.memory = AddressSpace()
        self.context = Context(self.memory, prog_type)
        self.frame_views: dict[int, dict[int, memoryview]] = {size: {} for size in VIEW_FORMATS}
        for depth in range(MAX_CALL_FRAMES):
            self._add_frame(depth)
        self.frame_bytes = self.frame_views[1]
        self.frames: list[tuple[int, int, int, int, int, int]] = []
        self.ops: list[Op] = []
        self.links: list[Link] = []
        self.link = link
        self.records: dict[int, Record] = {}
        self.handles: dict[int, MapHandle] = {}
        self._handles: dict[int, MapHandle] = {}
        self.skb = SkBuff(b"", 0)
        self.hook: Hook | None = None
        self.insns_left = 0
        self.loops_left: dict[int, int] = {}
        self.tail_calls = 0
        self.uses_stack = self.uses_may_goto = False
        self.loop: Callable[[int], None] = self._loop_plain

    # --- running ----------------------------------------------------------------------------------------------------
    def run(self, r1: int = CTX_ADDRESS, r2: int = 0) -> int:
        """Run from the first instruction; R0. Raises EngineFault."""
        regs = self.regs
        regs[:] = FRESH_REGS
        regs[1], regs[2] = r1, r2
        if self.uses_stack:
            self.frame_bytes[FRAME_TOPS[0]][:] = FRESH_FRAME
        if self.uses_may_goto:
            self.loops_left.clear()
        self.frames.clear()  # a run that faulted may have left some
        self.tail_calls = 0
        self.loop(0)
        return regs[0]

    def _loop_plain(self, pc: int) -> None:
        ops, regs = self.ops, self.regs
        try:
            while pc >= 0:
                pc = ops[pc](regs)
        except Fault as fault:
            raise self.fault(pc, str(fault), fault.address) from None

    def _loop_watched(self, pc: int) -> None:
        """The loop for a hook, an instruction limit, or both."""
        ops, regs, hook = self.ops, self.regs, self.hook
        try:
            while pc >= 0:
                if not self.insns_left:
                    raise self.fault(pc, "the instruction limit for this run is used up")
                self.insns_left -= 1
                if hook is not None:
                    hook(pc, regs)
                pc = ops[pc](regs)
        except Fault as fault:
            raise self.fault(pc, str(fault), fault.address) from None

    def watch(self, hook: Hook | None, insn_limit: int) -> None:
        """Choose the loop: the plain one unless there is a hook or a limit (negative: none)."""
        self.hook, self.insns_left = hook, insn_limit
        self.loop = self._loop_plain if hook is None and insn_limit < 0 else self._loop_watched

    # --- frames -----------------------------------------------------------------------------------------------------
    def enter(self, return_pc: int) -> None:
        """A new frame; R6 to R9 and R10 are kept for the caller. Raises Fault when there are 8 already, and 7 more for each tail
        call."""
        regs, frames = self.regs, self.frames
        depth = len(frames) + 1
        if depth >= MAX_CALL_FRAMES:
            self._go_deep(depth)
        frames.append((return_pc, regs[6], regs[7], regs[8], regs[9], regs[10]))
        top = regs[10] = FRAME_TOPS[depth]
        self.frame_bytes[top][:] = FRESH_FRAME
        if self.uses_may_goto:
            self.loops_left.pop(top, None)

    def _go_deep(self, depth: int) -> None:
        """Have a frame that few runs need."""
        if depth >= MAX_CALL_FRAMES + MORE_FRAMES * self.tail_calls:
            raise Fault(f"the call stack of {MAX_CALL_FRAMES} frames is used up")
        if FRAME_TOPS[depth] not in self.frame_bytes:
            self._add_frame(depth)

    def _add_frame(self, depth: int) -> None:
        number = FRAME_NUMBERS[depth]
        self.memory.add(f"stack frame {depth}", bytearray(MAX_BPF_STACK), number=number)
        for size, views in self.frame_views.items():
            views[FRAME_TOPS[depth]] = self.memory.buffers[number].cast(VIEW_FORMATS[size])

    def call(self, address: int, r1: int, r2: int, r3: int = 0, r4: int = 0, r5: int = 0) -> int:
        """Run the subprogram at a code address to its end, as helpers with callbacks do; its R0."""
        regs = self.regs
        self.enter(END_OF_RUN)
        regs[1:6] = (r1, r2, r3, r4, r5)
        self.loop(self.code_at(address))
        return regs[0]

    def tail_call(self, map_address: int, index: int) -> int:
        """The pc of the program at ``index`` of a program array, which goes on in the current frame; -1 when there is none, or
        33 tail calls were made in this run."""
        programs: Any = self.handle_at(map_address).map
        target = programs.get(index) if self.tail_calls < MAX_TAIL_CALL_CNT else None
        if target is None:
            return END_OF_RUN
        self.tail_calls += 1
        self.loops_left.pop(self.regs[10], None)
        return self.link(self, target if isinstance(target, VerifiedProgram) else target.program)

    def code_at(self, address: int) -> int:
        """The pc a code address names. Raises Fault."""
        pc = address - CODE_ADDRESS
        if not 0 <= pc < len(self.ops):
            raise Fault(f"{address:#x} is not the address of a subprogram", address)
        return pc

    # --- memory, the slow way ---------------------------------------------------------------------------------------
    def load(self, address: int, size: int) -> int:
        """A load that found no buffer: its address wrapped around, is the context's, a value's not opened yet, or a fault."""
        address = u64(address)
        return self.context.load(self.skb, address, size) if is_context(address) else self.memory.load(address, size)

    def store(self, address: int, size: int, value: int) -> None:
        """A store that found no buffer."""
        address = u64(address)
        if is_context(address):
            self.context.store(self.skb, address, size, value)
        else:
            self.memory.store(address, size, value)

    # --- programs and maps --------------------------------------------------------------------------------------------
    def locate(self, pc: int) -> tuple[VerifiedProgram, int]:
        """The program that has ``pc``, and the slot in it."""
        link = next(link for link in reversed(self.links) if link.base <= pc)
        return link.program, pc - link.base

    def fault(self, pc: int, message: str, address: int | None = None) -> EngineFault:
        """An EngineFault that names the instruction at ``pc``."""
        from netbpf.isa.disasm import format_insn  # few runs fault

        program, slot = self.locate(pc)
        insns = program.insns
        text = (
            format_insn(insns[slot], insns[slot + 1] if slot + 1 < len(insns) else None) if slot < len(insns) else "past the end"
        )
        return EngineFault(message, pc=slot, insn_text=text, address=address)

    def handle(self, live: Map) -> MapHandle:
        """The handle of a map, made when first asked for."""
        known = self._handles.get(id(live))
        if known is None:
            address = self.memory.add(f"struct bpf_map of {live.spec.name!r}", map_struct(live.spec), writable=False)
            known = MapHandle(live, address, self.memory.add_map(live))
            self._handles[id(live)] = self.handles[address] = known
        return known

    def handle_at(self, address: int) -> MapHandle:
        """The map a register points to. Raises Fault."""
        try:
            return self.handles[address]
        except KeyError:
            raise Fault(f"{address:#x} is not the address of a map", address) from None
