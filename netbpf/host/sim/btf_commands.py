"""BPF_BTF_LOAD: a blob checked and kept."""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.commands import OFF_BTF_LOG_TRUE_SIZE, BtfLoadAttr
from netbpf.errors import BpfError
from netbpf.host.sim.btf_check import check_btf
from netbpf.host.sim.log_buffer import LogBuffer
from netbpf.host.sim.machine import Call
from netbpf.host.sim.objects import BtfObject

BTF_MAX_SIZE: Final = 16 << 20


def btf_load(call: Call, attr: BtfLoadAttr) -> int:
    """A descriptor of the blob. Raises BpfError, and the reason in the caller's log."""
    if attr.btf_flags:  # tokens are not simulated
        raise BpfError(errno.EINVAL)
    if not call.task.is_capable("CAP_BPF"):
        raise BpfError(errno.EPERM)
    if attr.btf_size > BTF_MAX_SIZE:
        raise BpfError(errno.E2BIG)
    log = LogBuffer(attr.btf_log_level, attr.btf_log_buf, attr.btf_log_size)
    log.check()
    blob = call.memory.read(attr.btf, attr.btf_size)
    failure = _refusal(blob)
    true_size, log_errno = log.deliver(call.memory, f"{failure.strerror}\n" if failure else "")
    if call.size >= OFF_BTF_LOG_TRUE_SIZE + 4:
        call.put_u32(OFF_BTF_LOG_TRUE_SIZE, true_size)
    if failure is not None or log_errno:
        raise BpfError(log_errno or (failure.errno if failure else 0) or 0)
    return call.task.adopt(BtfObject(call.machine.btfs, blob))


def _refusal(blob: bytes) -> BpfError | None:
    try:
        check_btf(blob)
    except BpfError as e:
        return e
    return None
