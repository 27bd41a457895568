"""Accesses to the context and to sockets: which offsets and widths a program type may read or write, and what it gets.

Applies the rows of ``abi.context``; knows no register.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

from netbpf.abi.context import CTX_FIELDS, CTX_RULES, SOCK_COMMON_HIDDEN, CtxField
from netbpf.verifier import state as st
from netbpf.verifier.env import VerifierEnv

_POINTERS: Final = {
    "pkt": st.PTR_TO_PACKET,
    "pkt_meta": st.PTR_TO_PACKET_META,
    "pkt_end": st.PTR_TO_PACKET_END,
    "sock_common_or_null": st.PTR_TO_SOCK_COMMON | st.PTR_MAYBE_NULL,
}
SIZES: Final = (1, 2, 4, 8)


class CtxAccess(NamedTuple):
    """What a permitted load gives: a scalar or a kind of pointer."""

    field: str
    reg_type: int


def _fits(field: CtxField, off: int, size: int) -> bool:
    """Whether ``size`` bytes at ``off`` are a load that ``field.access`` takes."""
    at = off - field.off
    if off % size or at < 0 or at + size > field.size:
        return False
    word = at % 4
    match field.access:
        case "narrow":
            return size <= 4 and word + size <= 4
        case "word":
            return size == 4
        case "start":
            return size <= 4 and word == 0
        case "port":
            return size == 4 or at + size <= 2
        case "dword":
            return size == 8 and at == 0
        case "byte":
            return size == 1 and at == 0
    return True  # bytes


def _fits_store(field: CtxField, off: int, size: int) -> bool:
    """Stores take whole members only, except where any bytes do."""
    whole = 8 if field.access == "dword" else 4
    return _fits(field, off, size) and (field.access == "bytes" or size == whole)


class _Accesses(NamedTuple):
    """By (offset, size): what a load gives, and which stores are fine; each with whether it takes CAP_BPF."""

    load: dict[tuple[int, int], tuple[CtxAccess, bool]]
    store: dict[tuple[int, int], bool]


@cache
def _accesses(prog_type: int) -> _Accesses:
    rules = CTX_RULES[prog_type]
    load, store = {}, {}
    for field in CTX_FIELDS[rules.struct]:
        if field.name in rules.hidden:
            continue
        reg_type = _POINTERS.get(rules.pointers.get(field.name, ""), st.SCALAR_VALUE)
        for off in range(field.off, field.off + field.size):
            for size in SIZES:
                if _fits(field, off, size):
                    load[off, size] = CtxAccess(field.name, reg_type), field.name in rules.needs_cap_bpf
                if field.name in rules.writable and _fits_store(field, off, size):
                    store[off, size] = field.name in rules.write_needs_cap_bpf
    return _Accesses(load, store)


def ctx_load(env: VerifierEnv, off: int, size: int) -> CtxAccess | None:
    """What a load from the context gives; None where it is not permitted."""
    found = _accesses(env.prog_type).load.get((off, size))
    return None if found is None or (found[1] and not env.bpf_capable) else found[0]


def ctx_store_ok(env: VerifierEnv, off: int, size: int) -> bool:
    """Whether a store to the context is permitted."""
    needs_cap_bpf = _accesses(env.prog_type).store.get((off, size))
    return needs_cap_bpf is not None and (env.bpf_capable or not needs_cap_bpf)


@cache
def _sock_loads(common: bool) -> frozenset[tuple[int, int]]:
    return frozenset(
        (off, size)
        for field in CTX_FIELDS["bpf_sock"]
        if not (common and field.name in SOCK_COMMON_HIDDEN)
        for off in range(field.off, field.off + field.size)
        for size in SIZES
        if _fits(field, off, size)
    )


def sock_load_ok(reg_type: int, off: int, size: int) -> bool:
    """Whether ``size`` bytes at ``off`` of a socket may be read."""
    return (off, size) in _sock_loads(reg_type == st.PTR_TO_SOCK_COMMON)
