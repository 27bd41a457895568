"""bpf(2) commands on one map: create, element operations, freeze. Order of checks and errnos as 6.18 has them."""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.commands import MapCreateAttr, MapElemAttr
from netbpf.abi.maps import BPF_F_NUMA_NODE, BPF_F_RDONLY, BPF_F_TOKEN_FD, BPF_F_WRONLY, MapType
from netbpf.errors import BpfError
from netbpf.host.sim.fdtable import MODE_READ, MODE_WRITE, File
from netbpf.host.sim.machine import Call, check_name
from netbpf.host.sim.map_values import delete_value, lookup_and_delete_value, update_value
from netbpf.host.sim.objects import BtfObject, MapObject
from netbpf.maps.base import BPF_F_LOCK
from netbpf.maps.bloom_filter import BloomFilterMap
from netbpf.maps.check import check_spec
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec

_OF_MAPS: Final = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
_QUEUES: Final = frozenset({MapType.QUEUE, MapType.STACK})


# --- BPF_MAP_CREATE ---------------------------------------------------------------------------------------------------
def map_create(call: Call, attr: MapCreateAttr) -> int:
    """A descriptor of a new map."""
    mode = file_mode(attr.map_flags)
    spec = _spec_of(call, attr)
    _check_spec(call, spec, attr)
    name = check_name(attr.map_name)
    btf = _check_btf(call, attr)
    live = create(spec, n_cpus=call.machine.n_cpus, memory_limit=call.machine.memory_left())
    obj = MapObject(call.machine.maps, live, name, btf)
    if btf is not None:
        obj.btf_key_type_id, obj.btf_value_type_id = attr.btf_key_type_id, attr.btf_value_type_id
    return call.task.adopt(obj, mode)


def file_mode(flags: int) -> int:
    """How BPF_F_RDONLY and BPF_F_WRONLY open a file. Raises BpfError(EINVAL) for both."""
    both = BPF_F_RDONLY | BPF_F_WRONLY
    if flags & both == both:
        raise BpfError(errno.EINVAL)
    return MODE_READ if flags & BPF_F_RDONLY else MODE_WRITE if flags & BPF_F_WRONLY else MODE_READ | MODE_WRITE


def _spec_of(call: Call, attr: MapCreateAttr) -> MapSpec:
    if attr.map_flags & BPF_F_TOKEN_FD or attr.btf_vmlinux_value_type_id or attr.excl_prog_hash or attr.excl_prog_hash_size:
        raise BpfError(errno.EINVAL)  # tokens, struct_ops and exclusive maps are not simulated
    return MapSpec(
        map_type=attr.map_type,
        key_size=attr.key_size,
        value_size=attr.value_size,
        max_entries=attr.max_entries,
        map_flags=attr.map_flags,
        name=attr.map_name.partition(b"\0")[0].decode("latin-1"),
        map_extra=attr.map_extra,
        numa_node=attr.numa_node if attr.map_flags & BPF_F_NUMA_NODE else 0,
        inner=_inner_spec(call, attr),
        btf_key_type_id=attr.btf_key_type_id,
        btf_value_type_id=attr.btf_value_type_id,
    )


def _inner_spec(call: Call, attr: MapCreateAttr) -> MapSpec | None:
    """The template of a map of maps; None where the descriptor is not one, which the creation rules then refuse."""
    if attr.map_type not in _OF_MAPS:
        return None
    try:
        return call.map_file(attr.inner_map_fd)[1].spec
    except BpfError:
        return None


def _check_spec(call: Call, spec: MapSpec, attr: MapCreateAttr) -> None:
    disabled = bool(call.machine.sysctl.unprivileged_bpf_disabled)
    err = -check_spec(spec, caps=call.task.caps, unprivileged_disabled=disabled)
    if err == errno.EBADF and attr.map_type in _OF_MAPS:
        call.map_file(attr.inner_map_fd)  # says which: no descriptor, or not a map's
    if not err and attr.map_ifindex:
        err = errno.EOPNOTSUPP if call.machine.has_device(attr.map_ifindex) else errno.EINVAL  # none here takes maps
    if err:
        raise BpfError(err)


def _check_btf(call: Call, attr: MapCreateAttr) -> BtfObject | None:
    if not (attr.btf_key_type_id or attr.btf_value_type_id):
        return None
    return call.btf(attr.btf_fd)


# --- BPF_MAP_*_ELEM ---------------------------------------------------------------------------------------------------
def check_readable(file: File) -> None:
    if not file.mode & MODE_READ:
        raise BpfError(errno.EPERM)


def check_writable(file: File, obj: MapObject) -> None:
    if not file.mode & MODE_WRITE or obj.map.frozen:
        raise BpfError(errno.EPERM)


def _check_lock(flags: int) -> None:
    """BPF_F_LOCK needs a bpf_spin_lock in the value, which no map here has."""
    if flags & BPF_F_LOCK:
        raise BpfError(errno.EINVAL)


def _copy_key(call: Call, obj: MapObject, address: int) -> bytes:
    """__bpf_copy_key: a map without keys takes no key."""
    size = obj.spec.key_size
    if size:
        return call.memory.read(address, size)
    if address:
        raise BpfError(errno.EINVAL)
    return b""


def map_lookup_elem(call: Call, attr: MapElemAttr) -> int:
    if attr.flags & ~BPF_F_LOCK:
        raise BpfError(errno.EINVAL)
    file, obj = call.map_file(attr.map_fd)
    check_readable(file)
    _check_lock(attr.flags)
    key = _copy_key(call, obj, attr.key)
    if isinstance(obj.map, BloomFilterMap):  # asked whether it holds the value, which goes out as it came in
        value = call.memory.read(attr.value, obj.map.user_value_size)
        obj.map.peek_user(value)
    else:
        value = obj.map.lookup_user(key)
    call.memory.write(attr.value, value)
    return 0


def map_update_elem(call: Call, attr: MapElemAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_writable(file, obj)
    _check_lock(attr.flags)
    key = _copy_key(call, obj, attr.key)
    value = call.memory.read(attr.value, obj.map.user_value_size)
    update_value(call, obj, key, value, attr.flags)
    return 0


def map_delete_elem(call: Call, attr: MapElemAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_writable(file, obj)
    delete_value(obj, _copy_key(call, obj, attr.key))
    return 0


def map_get_next_key(call: Call, attr: MapElemAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_readable(file)
    key = _copy_key(call, obj, attr.key) if attr.key else None
    following = obj.map.next_key(key)
    if following is None:
        raise BpfError(errno.ENOENT)
    call.memory.write(attr.value, following)
    return 0


def map_lookup_and_delete_elem(call: Call, attr: MapElemAttr) -> int:
    if attr.flags & ~BPF_F_LOCK:
        raise BpfError(errno.EINVAL)
    file, obj = call.map_file(attr.map_fd)
    check_readable(file)
    check_writable(file, obj)
    if attr.flags and obj.spec.map_type in _QUEUES:
        raise BpfError(errno.EINVAL)
    _check_lock(attr.flags)
    key = _copy_key(call, obj, attr.key)
    call.memory.write(attr.value, lookup_and_delete_value(obj, key))
    return 0


def map_freeze(call: Call, attr: MapElemAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_writable(file, obj)
    obj.map.freeze()
    return 0
