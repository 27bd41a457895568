"""The flow of a packet for Python: the very code that a sharded packet loop asks (``kernels.flow``)."""

from __future__ import annotations

import ctypes
from typing import Final

from netbpf.engine.llvm.ir import Function
from netbpf.engine.llvm.kernels.language import compile_kernels
from netbpf.engine.llvm.merge import cached_object
from netbpf.engine.llvm.objfile import MappedCode
from netbpf.engine.llvm.program import address_of
from netbpf.engine.llvm.variant import link_words

_ENTRY: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 4)


class Flows:
    """Called with a packet's bytes and link type: the 64-bit number of its flow, the same in both directions."""

    def __init__(self, *, use_cache: bool) -> None:
        f = Function("define i64 @flow_of(i64 %packet, i64 %size, i64 %link, i64 %typed) nounwind")
        f.ret(f"i64 {f.op('call i64 @flow_key(i64 %packet, i64 %size, i64 %link, i64 %typed)')}")
        text = f"{compile_kernels('flow', '_key', {}, {})}\n{f.text()}"
        self._code = MappedCode(cached_object(text, lambda: text, use_cache))
        self._flow = _ENTRY(self._code.functions["flow_of"])

    def __call__(self, data: bytes, linktype: int) -> int:
        address, keep = address_of(data)
        number = int(self._flow(address, len(data), *link_words(linktype)))
        del keep
        return number
