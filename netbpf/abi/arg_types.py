"""Argument and return kinds of helper prototypes: enum bpf_arg_type, bpf_return_type, bpf_type_flag. Numbers only.

A kind is a base in the low eight bits and flags above; the flags are those of register types (``verifier.state``), so a
kind and a register can be compared by their flags.
"""

from __future__ import annotations

from typing import Final

# enum bpf_type_flag
PTR_MAYBE_NULL: Final = 1 << 8
MEM_RDONLY: Final = 1 << 9
MEM_RINGBUF: Final = 1 << 10
OBJ_RELEASE: Final = 1 << 13
MEM_UNINIT: Final = 1 << 15
DYNPTR_TYPE_LOCAL: Final = 1 << 16
DYNPTR_TYPE_RINGBUF: Final = 1 << 17
MEM_FIXED_SIZE: Final = 1 << 18
PTR_TRUSTED: Final = 1 << 20
MEM_ALIGNED: Final = 1 << 25
MEM_WRITE: Final = 1 << 26

# enum bpf_arg_type
ARG_DONTCARE: Final = 0
ARG_CONST_MAP_PTR: Final = 1
ARG_PTR_TO_MAP_KEY: Final = 2
ARG_PTR_TO_MAP_VALUE: Final = 3
ARG_PTR_TO_MEM: Final = 4
ARG_PTR_TO_ARENA: Final = 5
ARG_CONST_SIZE: Final = 6
ARG_CONST_SIZE_OR_ZERO: Final = 7
ARG_PTR_TO_CTX: Final = 8
ARG_ANYTHING: Final = 9
ARG_PTR_TO_SPIN_LOCK: Final = 10
ARG_PTR_TO_SOCK_COMMON: Final = 11
ARG_PTR_TO_SOCKET: Final = 12
ARG_PTR_TO_BTF_ID: Final = 13
ARG_PTR_TO_RINGBUF_MEM: Final = 14
ARG_CONST_ALLOC_SIZE_OR_ZERO: Final = 15
ARG_PTR_TO_BTF_ID_SOCK_COMMON: Final = 16
ARG_PTR_TO_PERCPU_BTF_ID: Final = 17
ARG_PTR_TO_FUNC: Final = 18
ARG_PTR_TO_STACK: Final = 19
ARG_PTR_TO_CONST_STR: Final = 20
ARG_PTR_TO_TIMER: Final = 21
ARG_KPTR_XCHG_DEST: Final = 22
ARG_PTR_TO_DYNPTR: Final = 23

ARG_PTR_TO_MAP_VALUE_OR_NULL: Final = PTR_MAYBE_NULL | ARG_PTR_TO_MAP_VALUE
ARG_PTR_TO_MEM_OR_NULL: Final = PTR_MAYBE_NULL | ARG_PTR_TO_MEM
ARG_PTR_TO_STACK_OR_NULL: Final = PTR_MAYBE_NULL | ARG_PTR_TO_STACK
ARG_PTR_TO_BTF_ID_OR_NULL: Final = PTR_MAYBE_NULL | ARG_PTR_TO_BTF_ID
ARG_PTR_TO_UNINIT_MEM: Final = MEM_UNINIT | MEM_WRITE | ARG_PTR_TO_MEM
ARG_PTR_TO_FIXED_SIZE_MEM: Final = MEM_FIXED_SIZE | ARG_PTR_TO_MEM

# enum bpf_return_type
RET_INTEGER: Final = 0
RET_VOID: Final = 1
RET_PTR_TO_MAP_VALUE: Final = 2
RET_PTR_TO_SOCKET: Final = 3
RET_PTR_TO_TCP_SOCK: Final = 4
RET_PTR_TO_SOCK_COMMON: Final = 5
RET_PTR_TO_MEM: Final = 6
RET_PTR_TO_MEM_OR_BTF_ID: Final = 7
RET_PTR_TO_BTF_ID: Final = 8

RET_PTR_TO_MAP_VALUE_OR_NULL: Final = PTR_MAYBE_NULL | RET_PTR_TO_MAP_VALUE
RET_PTR_TO_RINGBUF_MEM_OR_NULL: Final = PTR_MAYBE_NULL | MEM_RINGBUF | RET_PTR_TO_MEM
RET_PTR_TO_DYNPTR_MEM_OR_NULL: Final = PTR_MAYBE_NULL | RET_PTR_TO_MEM
RET_PTR_TO_BTF_ID_OR_NULL: Final = PTR_MAYBE_NULL | RET_PTR_TO_BTF_ID
RET_PTR_TO_BTF_ID_TRUSTED: Final = PTR_TRUSTED | RET_PTR_TO_BTF_ID
