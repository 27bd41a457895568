"""The reference engine: the kernel's semantics instruction by instruction, every address checked, in code meant to be read."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final

from netbpf.engine.interp.decode import link
from netbpf.engine.interp.machine import Hook, Machine
from netbpf.engine.results import Verdicts
from netbpf.engine.trace import TraceBuffer
from netbpf.env import Env
from netbpf.ints import U32_MAX
from netbpf.packet.skbuff import SkBuff
from netbpf.program import VerifiedProgram

if TYPE_CHECKING:
    from netbpf.packet.batch import PacketBatch
    from netbpf.packet.device import Device

UNPROVED_INSN_LIMIT: Final = 100_000_000
NO_LIMIT: Final = -1


class InterpEngine:
    """``insn_limit``: instructions a run may execute, negative for no limit; a program that no verifier saw always has one."""

    name = "interp"

    def __init__(self, *, insn_limit: int = NO_LIMIT) -> None:
        self.insn_limit = insn_limit

    def load(self, program: VerifiedProgram, env: Env, *, view: str = "packet_raw") -> InterpLoaded:
        """Raises UnsupportedProgram, which names what has no body here."""
        return InterpLoaded(program, env, insn_limit=self.insn_limit, view=view)


class InterpLoaded:
    """A program made live. One run at a time.

    ``trace`` is where bpf_trace_printk writes; ``device`` (None: the default one) and ``view`` say how packets of a batch come
    in, see ``packet.receive``.
    """

    __slots__ = ("_insn_limit", "_machine", "_watched", "device", "env", "program", "view")

    def __init__(
        self,
        program: VerifiedProgram,
        env: Env,
        *,
        trace: TraceBuffer | None = None,
        insn_limit: int = NO_LIMIT,
        device: Device | None = None,
        view: str = "packet_raw",
    ) -> None:
        self.program, self.env, self.device, self.view = program, env, device, view
        self._insn_limit = insn_limit if program.proved or insn_limit >= 0 else UNPROVED_INSN_LIMIT
        self._machine = Machine(env, TraceBuffer() if trace is None else trace, program.prog_type, link)
        link(self._machine, program)
        self.watch(None)

    @property
    def trace(self) -> TraceBuffer:
        return self._machine.trace

    @property
    def machine(self) -> Machine:
        """Frames, memory and programs, for who watches a run; to be looked at only."""
        return self._machine

    def watch(self, hook: Hook | None) -> None:
        """Call ``hook(pc, registers)`` before each instruction of the runs that follow; None ends that.

        Without a hook and a limit the runs take a loop that has no place for either. ``pc`` counts on through programs
        reached by tail calls; ``locate`` tells them apart.
        """
        self._machine.watch(hook, self._insn_limit)
        self._watched = hook is not None or self._insn_limit >= 0

    def locate(self, pc: int) -> tuple[VerifiedProgram, int]:
        """The program that a hook's pc is in, and the slot of the instruction in it."""
        return self._machine.locate(pc)

    # --- runs -------------------------------------------------------------------------------------------------------
    def run_one(self, skb: SkBuff) -> int:
        """Run once with the context of ``skb``; the full 64-bit R0. Raises EngineFault."""
        machine = self._machine
        machine.skb, machine.cpu = skb, self.env.cpu_id()
        if self._watched:
            machine.insns_left = self._insn_limit
        return machine.run()

    def run(self, batch: PacketBatch) -> Verdicts:
        """Run every packet of the batch in order; a frame that reaches no socket counts as dropped. Raises EngineFault.

        An Env whose clock is set (``set_time``) follows the packets' timestamps.
        """
        from netbpf.packet.device import DEFAULT_DEVICE
        from netbpf.packet.receive import receive  # runs of raw programs never need it

        n, device = len(batch), self.device or DEFAULT_DEVICE
        out = Verdicts(array("I", bytes(4 * n)), array("I", bytes(4 * n)), bytearray(n))
        env: Any = self.env
        set_time = getattr(env, "set_time", None)
        for i in range(n):
            record = batch.record(i)
            skb = receive(record, device, self.view)
            if skb is None:
                continue
            if set_time is not None:
                set_time(record.ts_ns)
            verdict = self.run_one(skb) & U32_MAX
            out.verdict[i], out.kept[i] = verdict, min(verdict, skb.len)
            out.trimmed[i] = 0 < verdict < skb.len
        return out

    def run_memory(self, memory: bytearray) -> int:
        """Run with R1 the address of ``memory``, 0 when it is empty, and R2 its length, as suites for raw programs do; R0.

        Raises EngineFault.
        """
        machine = self._machine
        machine.cpu, machine.insns_left = self.env.cpu_id(), self._insn_limit
        address = machine.memory.add("the program's memory", memory)
        try:
            return machine.run(address if memory else 0, len(memory))
        finally:
            machine.memory.drop(address)
