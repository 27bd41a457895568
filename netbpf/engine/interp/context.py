"""Loads and stores through the context pointer: R1's struct, of which only the fields a program touches are ever computed.

Where a field lies stands in ``abi.context``, what it holds in ``packet.context``. A load is compiled once for its offset and size
into a function of the sk_buff. Knows no opcode.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from netbpf.abi.context import CTX_RULES, KEPT_BYTES, SK_BUFF_FIELDS, SK_BUFF_SIZE, CtxField, CtxRules
from netbpf.abi.prog_types import ProgType
from netbpf.engine.interp.memory import (
    CTX_ADDRESS,
    CTX_NUMBER,
    NUMBER_SHIFT,
    PACKET_ADDRESS,
    PACKET_NUMBER,
    SIZE_MASK,
    SOCKET_ADDRESS,
    SOCKET_NUMBER,
    UINT,
    AddressSpace,
    Fault,
)
from netbpf.ints import u64
from netbpf.packet.context import FIELD_VALUES, WORD_VALUES, htonl, htons
from netbpf.packet.load import data_end
from netbpf.packet.skbuff import SkBuff

Reader = Callable[[SkBuff], int]
TCP_CLOSE: Final = 7
NO_RULES: Final = CtxRules("", frozenset(), frozenset(), {})


class Context:
    """The context of one program type, as a region of ``memory``."""

    __slots__ = ("_memory", "_readers", "_rules")

    def __init__(self, memory: AddressSpace, prog_type: int) -> None:
        rules = CTX_RULES.get(prog_type, NO_RULES)
        self._memory = memory
        self._rules = rules if rules.struct == "__sk_buff" else NO_RULES
        self._readers: dict[tuple[int, int], Reader] = {}
        size = SK_BUFF_SIZE if self._rules.struct else 0
        memory.name_region(CTX_NUMBER, f"the context of a {_type_name(prog_type)} program", size)

    # --- loads ------------------------------------------------------------------------------------------------------
    def reader(self, off: int, size: int) -> Reader:
        """How ``size`` bytes at ``off`` of the context are read. Raises Fault where nothing can be read so."""
        known = self._readers.get((off, size))
        if known is None:
            known = self._readers[off, size] = self._make_reader(off, size)
        return known

    def _make_reader(self, off: int, size: int) -> Reader:
        field = self._field(off, size, "read")
        pointer = self._rules.pointers.get(field.name)
        if pointer is not None:
            return POINTERS[pointer](self._memory)
        if field.name == "cb":
            return _cb_reader(off - field.off, size)
        return _number_reader(field, off - field.off, size)

    def load(self, skb: SkBuff, address: int, size: int) -> int:
        """``size`` bytes at an address in the context region."""
        return self.reader(address - CTX_ADDRESS, size)(skb)

    # --- stores -----------------------------------------------------------------------------------------------------
    def store(self, skb: SkBuff, address: int, size: int, value: int) -> None:
        """Write a field a program may write."""
        off = address - CTX_ADDRESS
        field = self._field(off, size, "write")
        if field.name not in self._rules.writable:
            raise self._refusal(off, size, "write", f"field {field.name!r} is read-only")
        if field.name == "cb":
            UINT[size].pack_into(skb.cb, off - field.off, value & SIZE_MASK[size])
            return
        shift = 8 * (off - field.off)
        old = FIELD_VALUES[field.name](skb)
        setattr(skb, field.name, old & ~(SIZE_MASK[size] << shift) | (value & SIZE_MASK[size]) << shift)

    # --- fields -----------------------------------------------------------------------------------------------------
    def _field(self, off: int, size: int, access: str) -> CtxField:
        if self._rules.struct:
            for field in SK_BUFF_FIELDS:
                if field.off <= off and off + size <= field.off + field.size and field.name not in self._rules.hidden:
                    return field
        raise self._refusal(off, size, access, f"no field of {self._rules.struct or 'this context'} that programs may {access}")

    def _refusal(self, off: int, size: int, access: str, why: str) -> Fault:
        address = u64(CTX_ADDRESS + off)
        return Fault(f"{access} of {size} bytes at {address:#x}: offset {off} of the context: {why}", address)


def is_context(address: int) -> bool:
    """Whether an address lies in the context region."""
    return address >> NUMBER_SHIFT == CTX_NUMBER


def _type_name(prog_type: int) -> str:
    return ProgType(prog_type).name.lower() if prog_type in set(ProgType) else f"type {prog_type}"


# --- readers ----------------------------------------------------------------------------------------------------------
def _cb_reader(at: int, size: int) -> Reader:
    unpack = UINT[size].unpack_from

    def read(skb: SkBuff) -> int:
        value: int = unpack(skb.cb, at)[0]
        return value

    return read


def _number_reader(field: CtxField, at: int, size: int) -> Reader:
    """A field, or ``size`` bytes of one of its words, cut out as a little-endian machine sees them (but see KEPT_BYTES)."""
    whole = _word_reader(field, at // 4) if field.words > 1 else FIELD_VALUES[field.name]
    kept, at = KEPT_BYTES.get(field.name, 4 if field.words > 1 else field.size), at % 4 if field.words > 1 else at
    shift, mask = 8 * at if size < kept else 0, SIZE_MASK[size]
    if size == field.size:
        return whole

    def read(skb: SkBuff) -> int:
        return whole(skb) >> shift & mask

    return read


def _word_reader(field: CtxField, word: int) -> Reader:
    value_of = WORD_VALUES[field.name]
    return lambda skb: value_of(skb, word)


def _packet_start(memory: AddressSpace) -> Reader:
    def read(skb: SkBuff) -> int:
        memory.add("the packet", skb.head, number=PACKET_NUMBER)
        return PACKET_ADDRESS + skb.data_off

    return read


def _packet_end(memory: AddressSpace) -> Reader:
    def read(skb: SkBuff) -> int:
        memory.add("the packet", skb.head, number=PACKET_NUMBER)
        return PACKET_ADDRESS + data_end(skb)

    return read


def _socket(memory: AddressSpace) -> Reader:
    """NULL where no socket owns the packet."""

    def read(skb: SkBuff) -> int:
        if not skb.has_sk:
            return 0
        memory.add("struct bpf_sock", bpf_sock(skb), number=SOCKET_NUMBER, writable=False)
        return SOCKET_ADDRESS

    return read


def bpf_sock(skb: SkBuff) -> bytes:
    """``struct bpf_sock`` of the socket that owns the packet, laid out as ``abi.context.BPF_SOCK_FIELDS`` says; it has no
    receive queue of its own."""
    head = struct.pack("<6I", skb.sk_bound_dev_if, skb.family, 0, 0, 0, 0)
    local = struct.pack("<I4II", htonl(skb.local_ip4), *map(htonl, skb.local_ip6), skb.local_port)
    remote = struct.pack("<I I4I", htons(skb.remote_port), htonl(skb.remote_ip4), *map(htonl, skb.remote_ip6))
    return head + local + remote + struct.pack("<Ii", skb.sk_state, -1)


POINTERS: Final[dict[str, Callable[[AddressSpace], Reader]]] = {
    "pkt": _packet_start,
    "pkt_meta": _packet_start,
    "pkt_end": _packet_end,
    "sock_common_or_null": _socket,
}
"""Fields whose load gives a pointer, by the kind ``abi.context`` states."""
