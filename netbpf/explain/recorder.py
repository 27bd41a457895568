"""The hook that watches one run and tells what each instruction did. Reads registers and memory; changes neither.

An instruction is looked at twice: before it runs, for what it is about to read and overwrite, and when the next one is about to
run, for what came of it. A helper that calls back into the program is looked at again when the program goes on behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from netbpf.engine.interp.counts import plain_op
from netbpf.engine.interp.engine import InterpLoaded
from netbpf.engine.interp.machine import END_OF_RUN, Regs
from netbpf.engine.interp.memory import CTX_NUMBER, FRAME_NUMBERS, NUMBER_SHIFT, OFFSET_MASK, PACKET_NUMBER, MapWindow
from netbpf.explain import calls as c
from netbpf.explain.fields import Dissection, format_field
from netbpf.explain.listing import Listing
from netbpf.explain.naming import context_field, name_of, offset_text
from netbpf.explain.openstep import ARITHMETIC, OpenStep
from netbpf.explain.origin import Origin, Origins, Source, load_size, swap_of
from netbpf.explain.places import Places, keys, map_name, number
from netbpf.explain.steps import Branch, Call, Change, Constraint, Load, Step, Test
from netbpf.ints import u32, u64
from netbpf.isa import opcodes as op
from netbpf.isa.disasm import JMP_SIGNS
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import BPF_REG_0, BPF_REG_FP, MAX_BPF_REG, bpf_class, bpf_mode, bpf_op, bpf_src
from netbpf.maps.base import Map
from netbpf.packet.load import load_start, skb_load_bytes, skb_load_bytes_relative
from netbpf.program import VerifiedProgram

MAX_STEPS: Final = 20_000
MAX_DIFFED: Final = 4096  # entries of a map looked at to see what a call changed beside its key (eviction)
TAIL_CALL: Final = 12
EVICTING: Final = frozenset({9, 10})  # LRU_HASH, LRU_PERCPU_HASH
_EXIT: Final = op.BPF_JMP | op.BPF_EXIT
_CALL: Final = op.BPF_JMP | op.BPF_CALL


class Recorder:
    """A hook for ``InterpLoaded.watch``, for one run. ``finish`` gives the steps; ``listing_for`` the listing of a program that a
    tail call reached. Steps beyond ``max_steps`` push out those in the middle."""

    def __init__(
        self,
        loaded: InterpLoaded,
        places: Places,
        dissection: Dissection,
        listing_for: Callable[[VerifiedProgram], Listing],
        *,
        max_steps: int = MAX_STEPS,
    ) -> None:
        self.machine, self.places, self.dissection = loaded.machine, places, dissection
        places.function_name = self._function_name
        self.calls = c.Calls(self.machine, places)
        self.origins = Origins()
        self.listings: list[Listing] = []
        self.constraints: list[Constraint] = []
        self.lookups: dict[int, tuple[Map, bytes]] = {}  # by step: the map and the key that was looked up
        self.total = 0
        self._listing_for = listing_for
        self._programs: dict[int, int] = {}  # id of a program -> index into listings
        self._where: dict[int, tuple[int, int, Instruction]] = {}  # pc -> (program, slot, instruction)
        self._first: list[OpenStep] = []
        self._latest: deque[OpenStep] = deque(maxlen=max(max_steps // 2, 1))
        self._keep_first = max_steps - max_steps // 2
        self._by_index: dict[int, OpenStep] = {}
        self._last: OpenStep | None = None
        self._waiting: list[OpenStep] = []  # helper calls whose callbacks run
        self._stacks: dict[int, bytes] = {}

    # --- the hook -------------------------------------------------------------------------------------------------------
    def __call__(self, pc: int, regs: Regs) -> None:
        depth = len(self.machine.frames)
        self._finish_last(pc, depth, regs)
        self._last = step = self._open(pc, depth, regs)
        if step.insn.dst < MAX_BPF_REG and step.insn.src < MAX_BPF_REG:  # what no verifier saw may name others, and faults
            _BEGIN[bpf_class(step.insn.code)](self, step, regs)

    def finish(self, regs: Regs) -> tuple[Step, ...]:
        """The run has ended (or faulted): every step, oldest first."""
        if self._last is not None:
            self._close(self._last, END_OF_RUN, regs)
            self._last = None
        return tuple(step.frozen() for step in (*self._first, *self._latest))

    def _finish_last(self, pc: int, depth: int, regs: Regs) -> None:
        """What the last instruction did, now that the next is about to run."""
        last, origins, waiting = self._last, self.origins, self._waiting
        if last is None:
            return
        if depth > last.depth:
            if last.is_helper_call:  # the helper is not done: it has called back
                waiting.append(last)
                origins.clear(*range(6))
            else:
                self._close(last, pc, regs)
            origins.enter(regs[BPF_REG_FP])
            return
        has_left = last.has_left(pc)
        if has_left or depth < last.depth:
            origins.leave()
        self._close(last, pc, regs)
        if waiting and depth == waiting[-1].depth:
            self._close(waiting.pop(), pc, regs)
        elif has_left and depth == last.depth:  # the callback is called once more
            origins.clear(*range(6))
            origins.enter(regs[BPF_REG_FP])

    def _open(self, pc: int, depth: int, regs: Regs) -> OpenStep:
        program, slot, insn = self._where.get(pc) or self._locate(pc)
        step = OpenStep(self.total, program, slot, pc, depth, insn, regs)
        step.stack = self._stack(depth)
        if self.total < self._keep_first:
            self._first.append(step)
        else:
            if len(self._latest) == self._latest.maxlen:
                self._by_index.pop(self._latest[0].index, None)
            self._latest.append(step)
        self.total += 1
        return step

    def _stack(self, depth: int) -> bytes:
        """The frame's bytes; the same object as long as they stay the same."""
        now = self.places.frame(depth)
        if self._stacks.get(depth) != now:
            self._stacks[depth] = now
        return self._stacks[depth]

    def _locate(self, pc: int) -> tuple[int, int, Instruction]:
        program, slot = self.machine.locate(pc)
        number_ = self._programs.get(id(program))
        if number_ is None:
            number_ = self._programs[id(program)] = len(self.listings)
            self.listings.append(self._listing_for(program))
        self._where[pc] = found = number_, slot, program.insns[slot]
        return found

    def _function_name(self, pc: int) -> str:
        program, slot, _ = self._where.get(pc) or self._locate(pc)
        return self.listings[program].function_at(slot).name

    def _close(self, step: OpenStep, next_pc: int, regs: Regs) -> None:
        if step.settle is not None:
            step.settle(regs, next_pc)
            step.settle = None
        if step.call is None and step.load is None and step.branch is None and step.insn.code != _EXIT:
            self._note_result(step, regs)

    def _note_result(self, step: OpenStep, regs: Regs) -> None:
        """What an instruction that only changes registers left there, in words."""
        dst = step.insn.dst
        if bpf_class(step.insn.code) in ARITHMETIC and dst < MAX_BPF_REG:
            step.store = self.places.describe(regs[dst])

    # --- packet loads, constants ------------------------------------------------------------------------------------------
    def begin_ld(self, step: OpenStep, regs: Regs) -> None:
        insn = step.insn
        if op.is_ld_imm64(insn.code):
            self.origins.clear(insn.dst)
            return
        offset = insn.imm + (regs[insn.src] if bpf_mode(insn.code) == op.BPF_IND else 0)
        size, off = load_size(insn), load_start(self.machine.skb, offset)
        source = Source("packet", off, size)
        self.origins.clear(*range(6))
        depth = step.depth

        def settle(regs: Regs, next_pc: int) -> None:
            missing = next_pc != step.pc + 1 or len(self.machine.frames) != depth
            self._packet_load(step, source, offset_text(offset), None if missing else regs[BPF_REG_0])

        step.settle = settle
        self._bring(step, BPF_REG_0, Origin(step.index, source))

    def _packet_load(self, step: OpenStep, source: Source, at: str, value: int | None) -> None:
        named = name_of(self.dissection, Origin(step.index, source))
        shown = named.show(value) if value is not None else ""
        step.load = Load("packet", named.label, at, source.off, source.size, value, shown)

    def _bring(self, step: OpenStep, reg: int, origin: Origin | None) -> None:
        """A load puts a number into a register."""
        self.origins.regs[reg] = origin
        if origin is not None:
            self._by_index[step.index] = step

    # --- loads through registers ------------------------------------------------------------------------------------------
    def begin_ldx(self, step: OpenStep, regs: Regs) -> None:
        insn, size = step.insn, load_size(step.insn)
        address = u64(regs[insn.src] + insn.off)
        self._load(step, address, size, insn.dst, bpf_mode(insn.code) == op.BPF_MEMSX)

    def _load(self, step: OpenStep, address: int, size: int, dst: int, is_signed: bool) -> None:
        region = address >> NUMBER_SHIFT
        origin: Origin | None
        if region == CTX_NUMBER:
            what, kind = context_field(address & OFFSET_MASK), "ctx"
            origin = Origin(step.index, Source("ctx", address & OFFSET_MASK, size, what))
        elif region == PACKET_NUMBER:
            what, kind = "", "packet"
            origin = Origin(step.index, Source("packet", address & OFFSET_MASK, size))
            origin = origin.then(swap_of(size)) if size > 1 else origin
        else:
            what, kind, origin = self.places.place(address), "memory", self.origins.load(address, size)
        self._bring(step, dst, None if is_signed else origin)

        def settle(regs: Regs, next_pc: int) -> None:
            value = regs[dst]
            named = name_of(self.dissection, origin) if origin is not None else None
            shown = named.show(value) if named is not None and value >> 32 == 0 else self.places.describe(value)
            at = str((address & OFFSET_MASK) - self.machine.skb.data_off) if kind == "packet" else ""
            told = named.label if named is not None and kind != "memory" else what
            if named is not None and kind == "memory":
                shown += f" ({named.label})"
            step.load = Load(kind, told, at, address & OFFSET_MASK if kind == "packet" else -1, size, value, shown)

        step.settle = settle

    # --- stores -----------------------------------------------------------------------------------------------------------
    def begin_st(self, step: OpenStep, regs: Regs) -> None:
        insn, size = step.insn, load_size(step.insn)
        address = u64(regs[insn.dst] + insn.off)
        by_reg = bpf_class(insn.code) == op.BPF_STX
        if by_reg and bpf_mode(insn.code) == op.BPF_ATOMIC:
            return self._atomic(step, regs, address, size)
        value = (regs[insn.src] if by_reg else u64(insn.imm)) & ((1 << 8 * size) - 1)
        self._store(step, address, size, insn.src if by_reg else None)
        step.store = f"{self.places.place(address) or hex(address)} = {self.places.describe(value)}"
        return None

    def _store(self, step: OpenStep, address: int, size: int, reg: int | None) -> None:
        if address >> NUMBER_SHIFT in FRAME_NUMBERS:
            self.origins.store(address, size, reg)
        found = self.places.value_at(address)
        if found is not None and found[1] is not None:
            self._watch_value(step, found[0], found[1])

    def _watch_value(self, step: OpenStep, window: MapWindow, key: bytes) -> None:
        """The step may change what the map holds under ``key``."""
        before = self.places.value_bytes(window, key)

        def settle(regs: Regs, next_pc: int) -> None:
            self._note_change(step, window, key, before, self.places.value_bytes(window, key))

        step.settle = settle

    def _note_change(self, step: OpenStep, window: MapWindow, key: bytes, before: bytes | None, after: bytes | None) -> None:
        if before == after:
            return
        live, places = window.map, self.places
        words = [places.value(live, data) if data is not None else None for data in (before, after)]
        difference = places.difference(live, before, after) if before is not None and after is not None else ""
        step.changes.append(Change(map_name(live), places.key(live, key), words[0], words[1], key, before, after, difference))

    def _atomic(self, step: OpenStep, regs: Regs, address: int, size: int) -> None:
        insn = step.insn
        if insn.imm == op.BPF_LOAD_ACQ:
            return self._load(step, u64(regs[insn.src] + insn.off), size, insn.dst, False)
        self._store(step, address, size, insn.src if insn.imm == op.BPF_STORE_REL else None)
        if insn.imm & op.BPF_FETCH:
            self.origins.clear(BPF_REG_0 if insn.imm == op.BPF_CMPXCHG else insn.src)
        place = self.places.place(address) or hex(address)
        changed, is_load = step.settle, self.places.read

        def settle(regs: Regs, next_pc: int) -> None:
            if changed is not None:
                changed(regs, next_pc)
            data = is_load(address, size)
            step.store = f"{place} = {number(int.from_bytes(data or b'', 'little'))}"

        step.settle = settle
        return None

    # --- arithmetic, jumps ------------------------------------------------------------------------------------------------
    def begin_alu(self, step: OpenStep, regs: Regs) -> None:
        self.origins.alu(step.insn, plain_op(self.machine.ops[step.pc]), regs)

    def begin_jmp(self, step: OpenStep, regs: Regs) -> None:
        insn = step.insn
        operation = bpf_op(insn.code)
        if operation == op.BPF_CALL:
            return self._call(step, regs)
        if operation not in (op.BPF_EXIT, op.BPF_JA):
            self._branch(step, regs)
        return None

    def _branch(self, step: OpenStep, regs: Regs) -> None:
        insn, before = step.insn, list(regs)
        origins = self.origins.regs[insn.dst], self.origins.regs[insn.src] if bpf_src(insn.code) == op.BPF_X else None

        def settle(regs: Regs, next_pc: int) -> None:
            taken = next_pc == step.pc + 1 + insn.off and insn.off != 0
            self._note_branch(step, before, origins, taken)

        step.settle = settle

    def _note_branch(self, step: OpenStep, regs: Regs, origins: tuple[Origin | None, Origin | None], taken: bool) -> None:
        insn = step.insn
        is_wide, by_reg = bpf_class(insn.code) == op.BPF_JMP, bpf_src(insn.code) == op.BPF_X
        cut = u64 if is_wide else u32
        left, right = cut(regs[insn.dst]), cut(regs[insn.src] if by_reg else insn.imm)
        sign = JMP_SIGNS[bpf_op(insn.code)]
        mine, other = origins
        if bpf_op(insn.code) == op.BPF_JCOND:
            step.branch = Branch(taken, step.slot + 1 + insn.off, "", "", "may_goto")
            return
        named = name_of(self.dissection, mine or other) if mine is not None or other is not None else None  # type: ignore[arg-type]
        show = named.show if named is not None else self.places.describe
        step.branch = Branch(taken, step.slot + 1 + insn.off, show(left), show(right), sign, named.label if named else "")
        for origin, reg, mine_value, its in ((mine, insn.dst, left, right), (other, insn.src, right, left)):
            if origin is not None:
                self._note_test(step, origin, reg, mine_value, its, sign, taken)

    def _note_test(self, step: OpenStep, origin: Origin, reg: int, value: int, other: int, sign: str, taken: bool) -> None:
        """The load that brought the number is told what it was compared with."""
        self.constraints.append(Constraint(origin, step.index, step.pc, reg, other, taken))
        load = self._by_index.get(origin.load)
        if load is not None:
            named = name_of(self.dissection, origin)
            load.tests.append(Test(named.label, named.show(value), sign, named.show(other), taken))

    # --- calls ------------------------------------------------------------------------------------------------------------
    def _call(self, step: OpenStep, regs: Regs) -> None:
        insn = step.insn
        if insn.src == op.BPF_PSEUDO_CALL:
            listing = self.listings[step.program]
            args = tuple((f"r{r}", self.places.describe(regs[r])) for r in range(1, 6) if regs[r])
            step.call = Call("function", listing.function_at(step.slot + 1 + insn.imm).name, args)
            return
        if bpf_src(insn.code) == op.BPF_X:
            step.call = Call("function", self.places.describe(regs[insn.dst]))
            return
        if insn.imm == TAIL_CALL:
            self._tail_call(step, regs)
        else:
            self._helper(step, insn.imm)

    def _tail_call(self, step: OpenStep, regs: Regs) -> None:
        args = self.calls.arguments(TAIL_CALL, step.regs)

        def settle(regs: Regs, next_pc: int) -> None:
            if next_pc == step.pc + 1:
                step.call = Call("tail_call", "tail_call", args, "no program there: goes on")
                self.origins.clear(*range(1, 6))
                return
            program = self._where.get(next_pc) or self._locate(next_pc)
            step.call = Call("tail_call", "tail_call", args, f"goes on in {self.listings[program[0]].name}")

        step.settle = settle

    def _helper(self, step: OpenStep, func_id: int) -> None:
        args, name = self.calls.arguments(func_id, step.regs), self.calls.name(func_id)
        effects = [effect for effect in (self._packet_bytes(step, func_id), self._map_effect(step, func_id)) if effect]
        for written in self.calls.written(func_id, step.regs):
            self.origins.wipe(written.address, written.size)
        self.origins.clear(*range(1, 6))

        def settle(regs: Regs, next_pc: int) -> None:
            value = regs[BPF_REG_0]
            self.origins.clear(*range(6))
            if func_id in c.LOOKUPS:
                self._looked_up(step, value)
            for effect in effects:
                effect(value)
            step.call = Call("helper", name, args, self._with_value(func_id, value))

        step.settle = settle

    def _with_value(self, func_id: int, value: int) -> str:
        """The result; of a lookup with what the map holds there."""
        told = self.calls.result(func_id, value)
        found = self.places.value_at(value) if func_id in c.LOOKUPS and value else None
        if found is None or found[2]:
            return told
        window = found[0]
        data = self.places.read(value, window.value_size)
        return f"{told} = {self.places.value(window.map, data)}" if data is not None else told

    def _looked_up(self, step: OpenStep, address: int) -> None:
        window = self.calls.window(step.regs[1])
        key = self.places.read(step.regs[2], window.key_size) if window is not None else None
        if window is None or key is None:
            return
        self.lookups[step.index] = window.map, key
        if address:
            self.places.found(address, key)

    def _packet_bytes(self, step: OpenStep, func_id: int) -> Callable[[int], None] | None:
        """skb_load_bytes and its kin: the packet's bytes go to memory."""
        skb, regs = self.machine.skb, step.regs
        offset, to, size = u32(regs[2]), regs[3], u32(regs[4])
        if func_id == c.SKB_LOAD_BYTES:
            start, data, at = skb.data_off + offset, skb_load_bytes(skb, offset, size), str(offset)
        elif func_id == c.SKB_LOAD_BYTES_RELATIVE:
            header = u32(regs[5])
            start = (skb.network_header if header else skb.mac_header) + offset
            data, at = skb_load_bytes_relative(skb, offset, size, header), f"{'net' if header else 'mac'}+{offset}"
        else:
            return None

        def effect(result: int) -> None:
            if data is not None:
                self.origins.copied(to, step.index, start, size)
                self._by_index[step.index] = step
            label = self.dissection.name(start, size)
            field = self.dissection.exact(start, size)
            shown = "" if data is None else self.dissection.value(field) if field is not None else format_field("bytes", data)
            value = int.from_bytes(data) if data is not None and size <= 8 else (0 if data is not None else None)
            step.load = Load("packet", label, at, start, size, value, shown)

        return effect

    def _map_effect(self, step: OpenStep, func_id: int) -> Callable[[int], None] | None:
        """What the helper changes in a map."""
        regs = step.regs
        window = self.calls.window(regs[2] if func_id == c.PERF_EVENT_OUTPUT else regs[1])
        if func_id in c.UNKEYED_WRITES:
            return self._unkeyed(step, func_id, window)
        if func_id not in c.KEYED_WRITES or window is None:
            return None
        key = self.places.read(regs[2], window.key_size)
        if key is None:
            return None
        evicts = window.map.map_type in EVICTING and window.map.spec.max_entries <= MAX_DIFFED
        before = self.places.value_bytes(window, key)
        others = self._contents(window) if evicts else {}

        def effect(result: int) -> None:
            for other, value in others.items():
                if other != key:
                    self._note_change(step, window, other, value, self.places.value_bytes(window, other))
            self._note_change(step, window, key, before, self.places.value_bytes(window, key))

        return effect

    def _contents(self, window: MapWindow) -> dict[bytes, bytes | None]:
        return {key: self.places.value_bytes(window, key) for key in keys(window.map)}

    def _unkeyed(self, step: OpenStep, func_id: int, window: MapWindow | None) -> Callable[[int], None]:
        calls, regs = self.calls, step.regs
        args = dict(calls.arguments(func_id, regs))
        word = c.UNKEYED_WRITES[func_id]
        record: Any = self.machine.records.get(regs[1])

        def effect(result: int) -> None:
            if result and word != "submitted":
                return
            live = window.map if window is not None else record.ring if record is not None else None
            if live is not None:
                what = args.get("value") or args.get("data", "")
                step.changes.append(Change(map_name(live), None, None, f"{word} {what}"))

        return effect


Begin = Callable[[Recorder, OpenStep, Regs], None]
_BEGIN: Final[dict[int, Begin]] = {
    op.BPF_LD: Recorder.begin_ld,
    op.BPF_LDX: Recorder.begin_ldx,
    op.BPF_ST: Recorder.begin_st,
    op.BPF_STX: Recorder.begin_st,
    op.BPF_ALU: Recorder.begin_alu,
    op.BPF_ALU64: Recorder.begin_alu,
    op.BPF_JMP: Recorder.begin_jmp,
    op.BPF_JMP32: Recorder.begin_jmp,
}
