"""Classic BPF -> eBPF that does the same, as the kernel's bpf_convert_filter makes it.

    A -> r0     X -> r7     context -> r6     M[i] -> the stack word at fp - 64 + 4*i     scratch -> r2

A and X start as zero and only ever hold 32 bits. Packet loads stay LD_ABS and LD_IND (which end the program with 0
outside the packet, as the classic ones do); ancillary loads become context loads and calls. What the kernel takes from
struct sk_buff by offsets only it knows is taken from ``struct __sk_buff`` here, so that the verifier proves the result as
it proves any program.

The filter must have passed ``cbpf_check``. What no path of it reaches is left out.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from netbpf.abi import classic as abi
from netbpf.abi import net
from netbpf.errors import ProgramRejected
from netbpf.ints import S16_MAX, S16_MIN, s32
from netbpf.isa import builders as b
from netbpf.isa import opcodes as op
from netbpf.isa.cfg import falls_through, is_jump
from netbpf.isa.classic import BPF_A, BPF_LEN, BPF_MEMWORDS, BPF_MISC, BPF_MSH, BPF_RET, BPF_TAX, ClassicProgram, SockFilter
from netbpf.isa.instruction import Instruction, Program
from netbpf.sources.cbpf_check import ancillary

A: Final = op.BPF_REG_0
X: Final = op.BPF_REG_7
CTX: Final = op.BPF_REG_6
TMP: Final = op.BPF_REG_2
FAR_OUTSIDE: Final = 1 << 30  # an offset in no packet; two such do not add up to a negative int

_OPPOSITE: Final = {op.BPF_JEQ: op.BPF_JNE, op.BPF_JGT: op.BPF_JLE, op.BPF_JGE: op.BPF_JLT}


class Converted(NamedTuple):
    """``insns``; ``origin[pc]`` is the classic instruction that slot ``pc`` came from (-1: the prologue)."""

    insns: Program
    origin: tuple[int, ...]


class _Jump(NamedTuple):
    """A jump whose distance waits for the place of classic instruction ``target``."""

    insn: Instruction
    target: int


_Item = Instruction | _Jump


def convert(insns: ClassicProgram, *, savefile: bool = False) -> Converted:
    """The eBPF program. Raises ProgramRejected(EINVAL) where a jump becomes too far, as the kernel does.

    With ``savefile`` the filter means what it means to libpcap's interpreter on a capture file: no offset is ancillary data or
    counts from another header, M[] starts as zeros, a shift by an X of 32 or more gives 0, and ``ja`` may go backwards (as
    ``ip6 protochain`` compiles; the loop ends with verdict 0 when it ran as long as the kernel lets one).
    """
    dialect: _Dialect = _Savefile(insns) if savefile else _Kernel()
    items = dialect.prologue()
    origin = [-1] * len(items)
    start: list[int] = []
    for pc, insn in enumerate(insns):
        start.append(len(items))
        items += dialect.convert_one(insn, pc)
        origin += [pc] * (len(items) - len(origin))
    live = _live(items, start)
    slot = {at: new for new, at in enumerate(live)}
    return Converted(tuple(_place(items[at], at, slot, start) for at in live), tuple(origin[at] for at in live))


def _live(items: list[_Item], start: list[int]) -> list[int]:
    """Items that some path comes to, in order: a classic filter may have others, an eBPF program may not."""
    live: set[int] = set()
    waiting = [0]
    while waiting:
        at = waiting.pop()
        if at in live:
            continue
        live.add(at)
        item = items[at]
        insn = item if isinstance(item, Instruction) else item.insn
        if isinstance(item, _Jump):
            waiting.append(start[item.target])
        elif is_jump(insn):
            waiting.append(at + 1 + insn.off)
        if falls_through(insn):
            waiting.append(at + 1)
    return sorted(live)


class _Dialect(Protocol):
    """What the two readers of a classic filter disagree about."""

    def prologue(self) -> list[_Item]:
        """What comes before the first instruction."""

    def convert_one(self, insn: SockFilter, pc: int) -> list[_Item]:
        """The eBPF of one instruction."""


class _Kernel:
    def prologue(self) -> list[_Item]:
        return [b.BPF_MOV32_IMM(A, 0), b.BPF_MOV32_IMM(X, 0), b.BPF_MOV64_REG(CTX, op.BPF_REG_1)]

    def convert_one(self, insn: SockFilter, pc: int) -> list[_Item]:
        return _convert_one(insn, pc)


class _Savefile(_Kernel):
    """libpcap's meaning of the instructions that it and the kernel read differently."""

    def __init__(self, insns: ClassicProgram) -> None:
        self.scratch = sorted({insn.k for insn in insns if insn.code in (op.BPF_LD | op.BPF_MEM, op.BPF_LDX | op.BPF_MEM)})

    def prologue(self) -> list[_Item]:
        return [*super().prologue(), *(b.BPF_ST_MEM(op.BPF_W, op.BPF_REG_FP, _scratch(k), 0) for k in self.scratch)]

    def convert_one(self, insn: SockFilter, pc: int) -> list[_Item]:
        code = insn.code
        if op.bpf_class(code) in (op.BPF_LD, op.BPF_LDX) and op.bpf_mode(code) in (op.BPF_ABS, op.BPF_IND, BPF_MSH):
            return self._packet_load(insn)
        if op.bpf_class(code) == op.BPF_ALU and op.bpf_op(code) in (op.BPF_LSH, op.BPF_RSH):
            return self._shift(insn)
        if code == op.BPF_JMP | op.BPF_JA and s32(insn.k) < 0:
            back = _Jump(b.BPF_JMP_A(0), pc + 1 + s32(insn.k))
            return [b.BPF_MAY_GOTO(1), back, *_return_zero()]
        return _convert_one(insn, pc)

    def _packet_load(self, insn: SockFilter) -> list[_Item]:
        """Offsets are unsigned: one that eBPF would take for another header's is far outside the packet."""
        if insn.k >= FAR_OUTSIDE:
            return _return_zero()
        if op.bpf_mode(insn.code) == op.BPF_IND:
            too_far = [b.BPF_JMP32_IMM(op.BPF_JLT, X, FAR_OUTSIDE, 2), *_return_zero()]
            return [*too_far, b.BPF_LD_IND(op.bpf_size(insn.code), X, insn.k)]
        return _convert_one(insn, 0)

    def _shift(self, insn: SockFilter) -> list[_Item]:
        if op.bpf_src(insn.code) == op.BPF_K:
            return _alu(insn)
        return [*_alu(insn), b.BPF_JMP32_IMM(op.BPF_JLT, X, 32, 1), b.BPF_MOV32_IMM(A, 0)]


def _place(item: _Item, at: int, slot: dict[int, int], start: list[int]) -> Instruction:
    """The instruction of the item at ``at``, its jump made to reach the slots that items came to."""
    if isinstance(item, Instruction):
        return item if not is_jump(item) else item._replace(off=slot[at + 1 + item.off] - slot[at] - 1)
    off = slot[start[item.target]] - slot[at] - 1
    if not S16_MIN <= off <= S16_MAX:
        raise ProgramRejected(errno.EINVAL, f"insn {item.target} is {off:+d} eBPF instructions away: too far\n")
    return item.insn._replace(off=off)


def _convert_one(insn: SockFilter, pc: int) -> list[_Item]:
    code = insn.code
    match op.bpf_class(code):
        case op.BPF_ALU:
            return _alu(insn)
        case op.BPF_JMP:
            return _jump(insn, pc)
        case op.BPF_LD:
            return _load(insn)
        case op.BPF_LDX:
            return _load_x(insn)
        case op.BPF_ST:
            return [b.BPF_STX_MEM(op.BPF_W, op.BPF_REG_FP, A, _scratch(insn.k))]
        case op.BPF_STX:
            return [b.BPF_STX_MEM(op.BPF_W, op.BPF_REG_FP, X, _scratch(insn.k))]
        case cls if cls == BPF_RET:
            set_a = [] if code == BPF_RET | BPF_A else [b.BPF_MOV32_IMM(A, insn.k)]
            return [*set_a, b.BPF_EXIT_INSN()]
    return [b.BPF_MOV64_REG(X, A) if code == BPF_MISC | BPF_TAX else b.BPF_MOV64_REG(A, X)]


def _scratch(k: int) -> int:
    """Where M[k] lies, from the frame pointer."""
    return -4 * (BPF_MEMWORDS - k)


def _alu(insn: SockFilter) -> list[_Item]:
    operation = op.bpf_op(insn.code)
    if operation == op.BPF_NEG:
        return [b.BPF_NEG32(A)]
    if op.bpf_src(insn.code) == op.BPF_K:
        return [b.BPF_ALU32_IMM(operation, A, insn.k)]
    by_x: list[_Item] = [b.BPF_ALU32_REG(operation, A, X)]
    if operation not in (op.BPF_DIV, op.BPF_MOD):
        return by_x
    return [b.BPF_JMP32_IMM(op.BPF_JNE, X, 0, 2), *_return_zero(), *by_x]  # a classic division by zero returns 0


def _return_zero() -> list[_Item]:
    return [b.BPF_MOV32_IMM(A, 0), b.BPF_EXIT_INSN()]


def _jump(insn: SockFilter, pc: int) -> list[_Item]:
    """A conditional jump with both ways taken apart: eBPF's falls through where it is not taken."""
    if insn.code == op.BPF_JMP | op.BPF_JA:
        return [_Jump(b.BPF_JMP_A(0), pc + 1 + s32(insn.k))]
    operation = op.bpf_op(insn.code)
    yes, no = pc + 1 + insn.jt, pc + 1 + insn.jf
    if not insn.jt and operation in _OPPOSITE:
        return [_Jump(_compare(insn, _OPPOSITE[operation]), no)]
    taken = _Jump(_compare(insn, operation), yes)
    return [taken] if not insn.jf else [taken, _Jump(b.BPF_JMP_A(0), no)]


def _compare(insn: SockFilter, operation: int) -> Instruction:
    if op.bpf_src(insn.code) == op.BPF_X:
        return b.BPF_JMP32_REG(operation, A, X, 0)
    return b.BPF_JMP32_IMM(operation, A, insn.k, 0)


def _load(insn: SockFilter) -> list[_Item]:
    number = ancillary(insn)
    if number is not None:
        return _ANCILLARY[number]()
    size = op.bpf_size(insn.code)
    match op.bpf_mode(insn.code):
        case op.BPF_ABS:
            return [b.BPF_LD_ABS(size, insn.k)]
        case op.BPF_IND:
            return [b.BPF_LD_IND(size, X, insn.k)]
        case mode:
            return _load_register(A, mode, insn.k)


def _load_x(insn: SockFilter) -> list[_Item]:
    if op.bpf_mode(insn.code) != BPF_MSH:
        return _load_register(X, op.bpf_mode(insn.code), insn.k)
    return [
        b.BPF_MOV64_REG(X, A),  # X keeps A over the load, which only X and the context survive
        b.BPF_LD_ABS(op.BPF_B, insn.k),
        b.BPF_ALU32_IMM(op.BPF_AND, A, 0xF),
        b.BPF_ALU32_IMM(op.BPF_LSH, A, 2),
        b.BPF_MOV64_REG(TMP, X),
        b.BPF_MOV64_REG(X, A),
        b.BPF_MOV64_REG(A, TMP),
    ]


def _load_register(dst: int, mode: int, k: int) -> list[_Item]:
    """LD and LDX of an immediate, a scratch word or the packet's length."""
    if mode == op.BPF_IMM:
        return [b.BPF_MOV32_IMM(dst, k)]
    if mode == op.BPF_MEM:
        return [b.BPF_LDX_MEM(op.BPF_W, dst, op.BPF_REG_FP, _scratch(k))]
    assert mode == BPF_LEN
    return [_context("len", dst)]


# --- ancillary data -----------------------------------------------------------------------------------------------------


def _context(field: str, dst: int = A) -> Instruction:
    from netbpf.abi.context import SK_BUFF_FIELDS  # most filters look at the packet alone

    (off,) = (row.off for row in SK_BUFF_FIELDS if row.name == field)
    return b.BPF_LDX_MEM(op.BPF_W, dst, CTX, off)


def _field(name: str) -> Callable[[], list[_Item]]:
    return lambda: [_context(name)]


def _network_order(name: str) -> Callable[[], list[_Item]]:
    """A 16-bit field that the context has in network byte order."""
    return lambda: [_context(name), b.BPF_ENDIAN(op.BPF_TO_BE, A, 16)]


def _of_device(*items: Instruction) -> Callable[[], list[_Item]]:
    """What a packet without a device has not: the filter returns 0 then."""
    return lambda: [_context("ifindex", TMP), b.BPF_JMP32_IMM(op.BPF_JNE, TMP, 0, 2), *_return_zero(), *items]


def _call(function: int) -> list[Instruction]:
    """A = function(skb, A, X)."""
    return [
        b.BPF_MOV64_REG(op.BPF_REG_1, CTX),
        b.BPF_MOV64_REG(op.BPF_REG_2, A),
        b.BPF_MOV64_REG(op.BPF_REG_3, X),
        b.BPF_CALL_FUNC(function),
    ]


def _call_item(function: int) -> Callable[[], list[_Item]]:
    return lambda: [*_call(function)]


def _helper(function: int) -> Callable[[], list[_Item]]:
    return lambda: [b.BPF_CALL_FUNC(function)]


_ANCILLARY: Final[dict[int, Callable[[], list[_Item]]]] = {
    net.SKF_AD_PROTOCOL: _network_order("protocol"),
    net.SKF_AD_PKTTYPE: _field("pkt_type"),
    net.SKF_AD_IFINDEX: _of_device(b.BPF_MOV64_REG(A, TMP)),
    net.SKF_AD_NLATTR: _call_item(abi.FUNC_SKB_GET_NLATTR),
    net.SKF_AD_NLATTR_NEST: _call_item(abi.FUNC_SKB_GET_NLATTR_NEST),
    net.SKF_AD_MARK: _field("mark"),
    net.SKF_AD_QUEUE: _field("queue_mapping"),
    net.SKF_AD_HATYPE: _of_device(*_call(abi.FUNC_SKB_GET_HATYPE)),
    net.SKF_AD_RXHASH: _field("hash"),
    net.SKF_AD_CPU: _helper(b.BPF_FUNC_get_smp_processor_id),
    net.SKF_AD_ALU_XOR_X: lambda: [b.BPF_ALU32_REG(op.BPF_XOR, A, X)],
    net.SKF_AD_VLAN_TAG: _field("vlan_tci"),
    net.SKF_AD_VLAN_TAG_PRESENT: _field("vlan_present"),
    net.SKF_AD_PAY_OFFSET: _call_item(abi.FUNC_SKB_GET_PAY_OFFSET),
    net.SKF_AD_RANDOM: _helper(b.BPF_FUNC_get_prandom_u32),
    net.SKF_AD_VLAN_TPID: _network_order("vlan_proto"),
}
