"""A packet that walks to where a program was refused: searched by running, and believed only when a run got there.

The refused program runs unproved in the interpreter, every access checked, on packets of a few kinds. Where a run leaves the
refusal's path, the comparison that sent it away is solved for the bytes of the packet it depends on (or its length, or an entry
of a map), and it runs again. What is found was seen to walk the path; what is not found may exist all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from netbpf.abi.net import VLAN_PROTOCOLS
from netbpf.engine.interp.engine import InterpEngine
from netbpf.env import SteppedEnv
from netbpf.errors import EngineFault, NetbpfError
from netbpf.explain.fields import dissect
from netbpf.explain.path import Listings
from netbpf.explain.places import Places, map_name
from netbpf.explain.recorder import Recorder
from netbpf.explain.steps import Constraint, Step
from netbpf.ints import bswap
from netbpf.isa import opcodes as op
from netbpf.isa.disasm import format_insn
from netbpf.isa.opcodes import MAX_BPF_REG, bpf_src, is_ld_imm64
from netbpf.maps.create import create
from netbpf.maps.storage import MapBase
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff
from netbpf.program import VIEWS, ProgramSpec, Subprog, VerifiedProgram

MAX_RUNS: Final = 80  # of one kind of packet
MAX_INSNS: Final = 5_000  # of one run
MAX_STEPS: Final = 150_000  # of all runs together: some seconds
MAX_BRANCHES: Final = 64  # a diagnosis with so many may lack the first ones
MAX_FRAME: Final = 4096
MAX_WORSE: Final = 300  # runs that look for a packet that does harm
OUTER_TAG: Final = bytes.fromhex("81000001")
_BY_IDX: Final = frozenset({op.BPF_PSEUDO_MAP_IDX, op.BPF_PSEUDO_MAP_IDX_VALUE})
EXHAUSTED: Final = 2  # bytes of a field whose every value is tried


@dataclass(frozen=True, slots=True)
class Witness:
    """A packet seen to walk a refusal's path to its instruction: ``frame`` as it is on the wire. ``fault`` is what the run did
    there that no verified program does, "" where it went on. ``entries`` had to be in maps: (map, key in words)."""

    frame: bytes
    summary: str
    fault: str
    entries: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """See docs/answers.md."""
        return {
            "packet": self.frame.hex(), "summary": self.summary, "fault": self.fault,
            "map_entries": [{"map": name, "key": key} for name, key in self.entries],
        }  # fmt: skip


def find_witness(spec: ProgramSpec, diagnosis: Mapping[str, Any]) -> Witness | None:
    """The packet, None where none was found. ``diagnosis`` is a refusal's (``verifier.diagnosis``) of this very program."""
    target, path = diagnosis.get("insn"), diagnosis.get("path") or []
    if target is None or len(path) >= MAX_BRANCHES or spec.classic:
        return None
    refused = next((s for s in (spec, *spec.others) if _is_of(s, diagnosis)), None)
    if refused is None:
        return None
    wanted, steps = [(int(b["insn"]), bool(b["taken"])) for b in path], 0
    for frame in SEEDS:
        search = _Search(refused, int(target), wanted, frame, left=MAX_STEPS - steps)
        try:
            found = search.run()
        except NetbpfError:  # a map that cannot be made, an instruction that has no body
            return None
        if found is not None:
            return found
        steps = MAX_STEPS - search.left
    return None


def _is_of(spec: ProgramSpec, diagnosis: Mapping[str, Any]) -> bool:
    """Whether the refusal is of this program, and not of another one that its maps hold: its instructions stand where it says,
    and the maps that it names are there."""
    if any(i.src in _BY_IDX and is_ld_imm64(i.code) and not 0 <= i.imm < len(spec.maps) for i in spec.insns):
        return False
    rows = [(diagnosis["insn"], diagnosis["instruction"]), *((b["insn"], b["text"]) for b in diagnosis["path"])]
    return all(
        pc < len(spec.insns) and (is_ld_imm64(spec.insns[pc].code) or format_insn(spec.insns[pc]) == text) for pc, text in rows
    )


@dataclass(slots=True)
class _Run:
    """One run: its steps, what its comparisons depended on, its lookups, and the fault that ended it."""

    skb: SkBuff
    steps: tuple[Step, ...]
    recorder: Recorder
    fault: str


@dataclass(slots=True)
class _Search:
    spec: ProgramSpec
    target: int
    wanted: Sequence[tuple[int, bool]]
    head: bytes  # what the program sees of the packet
    entries: dict[tuple[int, bytes], str] = field(default_factory=dict)  # (map index, key) -> key in words
    tried: set[tuple[bytes, frozenset[tuple[int, bytes]]]] = field(default_factory=set)
    left: int = MAX_STEPS  # steps that may still be made

    def run(self) -> Witness | None:
        for _ in range(MAX_RUNS):
            state = self.head, frozenset(self.entries)
            if state in self.tried:
                return None
            self.tried.add(state)
            run = self._run_once()
            if run is None:
                return None
            parted = self._parted(run)
            if parted is None:
                return self._worse(run) or self._witness(run)
            if not self._mend(run, parted):
                return None
        return None

    @property
    def frame(self) -> bytes:
        """The packet on the wire: a socket sees a tag at 12 only behind another one, which the kernel moves out."""
        tagged = int.from_bytes(self.head[12:14]) in VLAN_PROTOCOLS and VIEWS[self.spec.view] != "file"
        return self.head[:12] + OUTER_TAG + self.head[12:] if tagged else self.head

    # --- running --------------------------------------------------------------------------------------------------------
    def _run_once(self) -> _Run | None:
        skb = receive(Record(1, 0, len(self.frame), self.frame), view=VIEWS[self.spec.view])
        if skb is None or skb.head != self.head or self.left <= 0:
            return None
        maps = self._maps()
        insns = self.spec.insns
        subprogs = (Subprog(0, len(insns), op.MAX_BPF_STACK),)
        program = VerifiedProgram(insns, self.spec.prog_type, tuple(maps), subprogs, name=self.spec.name, proved=False)
        loaded = InterpEngine(insn_limit=MAX_INSNS).load(program, SteppedEnv())
        recorder = Recorder(loaded, Places(loaded.machine), dissect(skb), Listings.of(self.spec), max_steps=2 * MAX_INSNS)
        loaded.watch(recorder)
        fault = ""
        try:
            loaded.run_one(skb)
        except EngineFault as e:
            fault = e.message
        steps = recorder.finish(loaded.machine.regs)
        self.left -= len(steps)
        return _Run(skb, steps, recorder, fault)

    def _maps(self) -> list[MapBase]:
        """The program's maps made anew, with the entries that the path needs."""
        made = []
        for index, decl in enumerate(self.spec.maps):
            live = create(decl.spec, map_id=index + 1)
            for key, value in decl.contents:
                live.update_user(key, value)
            for at, key in self.entries:
                if at == index:
                    live.update(key, bytes(decl.spec.value_size))
            made.append(live)
        return made

    def _parted(self, run: _Run) -> int | None:
        """The number of branches that were as wanted before one was not; None where the run got to the target on the path."""
        done = 0
        for step in run.steps:
            if done == len(self.wanted) and step.pc == self.target:
                return None
            if step.branch is not None:
                if done == len(self.wanted) or (step.pc, step.branch.taken) != self.wanted[done]:
                    return done
                done += 1
        return done

    def _witness(self, run: _Run) -> Witness:
        entries = tuple((self.spec.maps[index].spec.name, text) for (index, _), text in self.entries.items())
        last = run.steps[-1].pc == self.target
        return Witness(self.frame, dissect(run.skb).summary(), run.fault if last else "", entries)

    def _worse(self, run: _Run) -> Witness | None:
        """A packet on the same path that does what the proof feared: other values of what the path loaded, within its bounds."""
        if run.fault:
            return None
        loads = [s.load for s in run.steps if s.load is not None and s.load.kind == "packet" and s.load.value is not None]
        first, runs = self.head, 0
        for load in loads:
            if load.size > 4 or load.off + load.size > len(first):
                continue
            for value in self._extremes(run, load.off, load.size):
                self.head = first[: load.off] + value.to_bytes(load.size) + first[load.off + load.size :]
                if not all(_still(run, c, self.head) for c in run.recorder.constraints):
                    continue
                other, runs = self._run_once(), runs + 1
                if other is not None and other.fault and self._parted(other) is None:
                    return self._witness(other)
                if runs == MAX_WORSE:
                    break
        self.head = first
        return None

    def _extremes(self, run: _Run, off: int, size: int) -> Iterator[int]:
        """Numbers at the ends of what the path allows; every one of a byte."""
        if size == 1:
            yield from range(255, -1, -1)
            return
        limit = 1 << 8 * size
        compared = [c for c in run.recorder.constraints if c.origin.source == ("packet", off, size, "")]
        yield from (v for c in compared for v in _candidates(c, limit - 1, 4) if v < limit)
        yield from (limit - 1, limit >> 1, (limit >> 1) - 1, 0)

    # --- mending --------------------------------------------------------------------------------------------------------
    def _mend(self, run: _Run, done: int) -> bool:
        """Change the packet, or a map, so that the next branch goes as wanted; False where nothing is known that would."""
        branches = [step for step in run.steps if step.branch is not None]
        if done >= len(branches) or done >= len(self.wanted) or branches[done].pc != self.wanted[done][0]:
            return self._lengthen(run)
        step, taken = branches[done], self.wanted[done][1]
        mine = [c for c in run.recorder.constraints if c.step == step.index]
        earlier = [c for c in run.recorder.constraints if c.step < step.index]
        return any(self._solve(run, c, taken, earlier) for c in mine) or self._fill_map(run, step)

    def _lengthen(self, run: _Run) -> bool:
        """The run ended at a load behind the packet's end: make the packet longer."""
        load = run.steps[-1].load if run.steps else None
        if load is None or load.value is not None or not 0 <= load.off < MAX_FRAME:
            return False
        more = load.off + load.size - len(run.skb.head)
        self.head += bytes(max(more, 0))
        return more > 0

    def _solve(self, run: _Run, constraint: Constraint, taken: bool, earlier: list[Constraint]) -> bool:
        source = constraint.origin.source
        if source.kind == "ctx":
            return self._solve_context(run, constraint, taken)
        if source.off + source.size > len(self.head):
            return False
        holds = _outcome(run, constraint)
        now = int.from_bytes(self.head[source.off : source.off + source.size])
        fitting: list[bytes] = []
        for value in _candidates(constraint, now, source.size):
            if holds(value) != taken:
                continue
            head = self.head[: source.off] + value.to_bytes(source.size) + self.head[source.off + source.size :]
            if all(_still(run, c, head) for c in earlier):
                self.head = head
                return True
            fitting.append(head)
        if fitting:  # it disturbs an earlier comparison, which the next runs mend in their turn
            self.head = fitting[0]
        return bool(fitting)

    def _solve_context(self, run: _Run, constraint: Constraint, taken: bool) -> bool:
        """A field of the context that the frame decides: its length, its EtherType."""
        name, holds = constraint.origin.source.name, _outcome(run, constraint)
        if name == "skb->len":
            lengths = (constraint.other, constraint.other + 1, constraint.other - 1, 60, 1500)
            fits = [n for n in lengths if 14 <= n <= MAX_FRAME and holds(n) == taken]
            if fits:
                self.head = self.head[: fits[0]].ljust(fits[0], b"\0")
            return bool(fits)
        if name == "skb->protocol":
            fits = [v for v in range(0x10000) if holds(v) == taken and bswap(v, 2) >= 0x600]
            if fits:
                self.head = self.head[:12] + bswap(fits[0], 2).to_bytes(2) + self.head[14:]
            return bool(fits)
        return False

    def _fill_map(self, run: _Run, branch: Step) -> bool:
        """The branch asks whether a lookup found anything, and nothing was there: put an entry there."""
        lookup = next((s for s in reversed(run.steps[: branch.index]) if s.index in run.recorder.lookups), None)
        if lookup is None:
            return False
        live, key = run.recorder.lookups[lookup.index]
        index = next((i for i, decl in enumerate(self.spec.maps) if decl.spec.name == map_name(live)), -1)
        if index < 0 or (index, key) in self.entries:
            return False
        self.entries[index, key] = Places(run.recorder.machine).key(live, key)
        return True


def _outcome(run: _Run, constraint: Constraint) -> Callable[[int], bool]:
    """What the jump would do, had the source been another number."""
    machine = run.recorder.machine
    jump, insn = machine.ops[constraint.pc], machine.locate(constraint.pc)[0].insns[machine.locate(constraint.pc)[1]]

    def holds(raw: int) -> bool:
        scratch = [0] * MAX_BPF_REG
        if bpf_src(insn.code) == op.BPF_X:
            scratch[insn.dst if constraint.register == insn.src else insn.src] = constraint.other
        scratch[constraint.register] = constraint.origin.evaluate(raw)
        return jump(scratch) != constraint.pc + 1

    return holds


def _still(run: _Run, constraint: Constraint, head: bytes) -> bool:
    """Whether an earlier comparison comes out as it did."""
    source = constraint.origin.source
    if source.kind != "packet":
        return True
    return _outcome(run, constraint)(int.from_bytes(head[source.off : source.off + source.size])) == constraint.taken


def _candidates(constraint: Constraint, now: int, size: int) -> Iterator[int]:
    """Numbers of ``size`` bytes to try: what the comparison suggests first, every one of a short field last."""
    limit, other = 1 << 8 * size, constraint.other
    masks = [t.operand for t in constraint.origin.ops if t.sign == "&"]
    for base in (other, other + 1, other - 1, bswap(other, size) if other < limit else 0, 0, limit - 1):
        for mask in masks:
            yield now & ~mask & (limit - 1) | base & mask & (limit - 1)
        shifted = [base >> t.operand if t.sign == "<<" else base << t.operand for t in constraint.origin.ops if t.sign in _SHIFTS]
        moved = [base - t.operand if t.sign == "+" else base + t.operand for t in constraint.origin.ops if t.sign in ("+", "-")]
        yield from (v for v in (base, *shifted, *moved) if 0 <= v < limit)
    yield from (now ^ 1 << bit for bit in range(8 * size))
    if size <= EXHAUSTED:
        yield from range(limit)


_SHIFTS: Final = ("<<", ">>", "s>>")


# --- where to begin ---------------------------------------------------------------------------------------------------------
def _ethernet(kind: int, rest: bytes) -> bytes:
    frame = bytes.fromhex("020000000001020000000002") + kind.to_bytes(2) + rest
    return frame.ljust(60, b"\0")


def _ipv4(proto: int, rest: bytes) -> bytes:
    head = bytes.fromhex("4500") + (20 + len(rest)).to_bytes(2) + bytes.fromhex("00010000") + bytes((64, proto, 0, 0))
    return _ethernet(0x0800, head + bytes.fromhex("0a0000010a000002") + rest)


SEEDS: Final = (
    _ipv4(6, bytes.fromhex("c35101bb00000001000000005002ffff00000000")),
    _ipv4(17, bytes.fromhex("c351003500080000")),
    _ethernet(0x86DD, bytes.fromhex("60000000000806402001" + "00" * 13 + "0120010000000000000000000000000002c35101bb00080000")),
    _ethernet(0x0806, bytes.fromhex("0001080006040001")),
    bytes(64),
)
"""Frames a search starts from: TCP and UDP over IPv4, UDP over IPv6, ARP, zeros."""
