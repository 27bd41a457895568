"""The Python methods of a process, each packed into ``union bpf_attr`` and handed to that process's own bpf(2).

One body for the simulator and for the real kernel: what a method asks for is by construction what the bytes ask for. Knows
the attr forms and nothing of what stands behind the call.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from netbpf.abi import commands as abi
from netbpf.abi.commands import Cmd
from netbpf.abi.info import BTF_INFO, MAP_INFO, PROG_INFO, BtfInfo, MapInfo, ProgInfo
from netbpf.abi.maps import MapType
from netbpf.errors import BpfError, ProgramRejected
from netbpf.host.memory import CallBuffers
from netbpf.ints import round_up
from netbpf.isa.builders import flatten
from netbpf.isa.instruction import Instruction, Program, decode, encode
from netbpf.maps.spec import MapSpec

LOG_BYTES = 1 << 16
LOG_BYTES_MAX = 0xFFFF_FFFF >> 2
_PER_CPU = frozenset(
    {MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH, MapType.PERCPU_CGROUP_STORAGE}
)
_FD_VALUED = frozenset(
    {MapType.PROG_ARRAY, MapType.PERF_EVENT_ARRAY, MapType.CGROUP_ARRAY, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS}
)
_REFUSALS = frozenset({errno.EINVAL, errno.EACCES, errno.E2BIG})


class TestRun(NamedTuple):
    """What BPF_PROG_TEST_RUN gave back. ``duration_ns`` is the mean of the repeats."""

    retval: int
    data_out: bytes
    ctx_out: bytes
    duration_ns: int


class Shape(NamedTuple):
    """Bytes of a key and of a value as user space passes them."""

    key_size: int
    value_size: int


class BpfCalls(ABC):
    """What a process does with bpf(2). Every method raises BpfError with the kernel's errno."""

    possible_cpus: int = 1

    # --- the two things a process supplies --------------------------------------------------------------------------
    @abstractmethod
    def call(self, cmd: int, attr: bytearray, buffers: CallBuffers) -> int:
        """bpf(2) with pointers into ``buffers``; out fields come back in ``attr``."""

    @abstractmethod
    def new_buffers(self) -> CallBuffers:
        """Empty buffers whose addresses ``call`` accepts."""

    def diagnosis(self) -> Any:
        """The structured reason of this process's last refused load, where the host has one."""
        return None

    @property
    @abstractmethod
    def load_logs(self) -> dict[int, str]:
        """Verifier logs of accepted programs by descriptor."""

    # --- maps ---------------------------------------------------------------------------------------------------------
    def map_create(self, spec: MapSpec, *, inner_map_fd: int = 0, btf_fd: int = 0) -> int:
        """BPF_MAP_CREATE: a descriptor. ``spec.inner`` without ``inner_map_fd`` makes the template map and drops it again."""
        template = self.map_create(spec.inner) if spec.inner is not None and not inner_map_fd else 0
        try:
            row = abi.MapCreateAttr(
                map_type=spec.map_type,
                key_size=spec.key_size,
                value_size=spec.value_size,
                max_entries=spec.max_entries,
                map_flags=spec.map_flags,
                inner_map_fd=inner_map_fd or template,
                numa_node=spec.numa_node,
                map_name=object_name(spec.name),
                btf_fd=btf_fd,
                btf_key_type_id=spec.btf_key_type_id if btf_fd else 0,
                btf_value_type_id=spec.btf_value_type_id if btf_fd else 0,
                map_extra=spec.map_extra,
            )
            return self.call(Cmd.BPF_MAP_CREATE, abi.MAP_CREATE.pack(row), self.new_buffers())
        finally:
            if template:
                self.close(template)

    def map_lookup_elem(self, fd: int, key: bytes, flags: int = 0) -> bytes:
        """The value's bytes; of a per-CPU kind all CPUs' copies, each padded to 8 bytes. ENOENT where there is none."""
        return self._lookup(Cmd.BPF_MAP_LOOKUP_ELEM, fd, key, flags)

    def map_lookup_and_delete_elem(self, fd: int, key: bytes, flags: int = 0) -> bytes:
        """The value's bytes, and the element is gone."""
        return self._lookup(Cmd.BPF_MAP_LOOKUP_AND_DELETE_ELEM, fd, key, flags)

    def _lookup(self, cmd: Cmd, fd: int, key: bytes, flags: int) -> bytes:
        shape, buffers = self.map_shape(fd, key), self.new_buffers()
        value = buffers.room(shape.value_size)
        row = abi.MapElemAttr(fd, buffers.put(key) if key else 0, value, flags)
        self.call(cmd, abi.MAP_ELEM.pack(row), buffers)
        return buffers.get(value, shape.value_size)

    def map_update_elem(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        """``flags``: BPF_ANY, BPF_NOEXIST (EEXIST), BPF_EXIST (ENOENT)."""
        self.map_shape(fd, key, value)
        buffers = self.new_buffers()
        row = abi.MapElemAttr(fd, buffers.put(key) if key else 0, buffers.put(value), flags)
        self.call(Cmd.BPF_MAP_UPDATE_ELEM, abi.MAP_ELEM.pack(row), buffers)

    def map_delete_elem(self, fd: int, key: bytes) -> None:
        self.map_shape(fd, key)
        buffers = self.new_buffers()
        row = abi.MapElemAttr(fd, buffers.put(key) if key else 0)
        self.call(Cmd.BPF_MAP_DELETE_ELEM, abi.MAP_ELEM.pack(row), buffers)

    def map_get_next_key(self, fd: int, key: bytes | None) -> bytes:
        """The key after ``key``; the first one for None or a key that is not there. ENOENT at the end."""
        shape, buffers = self.map_shape(fd, key), self.new_buffers()
        next_key = buffers.room(shape.key_size)
        row = abi.MapElemAttr(fd, 0 if key is None else buffers.put(key), next_key)
        self.call(Cmd.BPF_MAP_GET_NEXT_KEY, abi.MAP_ELEM.pack(row), buffers)
        return buffers.get(next_key, shape.key_size)

    def map_items(self, fd: int) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) in the order of BPF_MAP_GET_NEXT_KEY; an element deleted meanwhile is left out."""
        key: bytes | None = None
        while True:
            try:
                key = self.map_get_next_key(fd, key)
            except BpfError as e:
                if e.errno == errno.ENOENT:
                    return
                raise
            try:
                yield key, self.map_lookup_elem(fd, key)
            except BpfError as e:
                if e.errno != errno.ENOENT:
                    raise

    def map_has_value(self, fd: int, value: bytes) -> bool:
        """BPF_MAP_LOOKUP_ELEM on a bloom filter: whether a value may have been put in."""
        buffers = self.new_buffers()
        row = abi.MapElemAttr(fd, 0, buffers.put(value))
        try:
            self.call(Cmd.BPF_MAP_LOOKUP_ELEM, abi.MAP_ELEM.pack(row), buffers)
        except BpfError as e:
            if e.errno != errno.ENOENT:
                raise
            return False
        return True

    def map_freeze(self, fd: int) -> None:
        """No more writes from user space."""
        self.call(Cmd.BPF_MAP_FREEZE, abi.MAP_ELEM.pack(abi.MapElemAttr(fd)), self.new_buffers())

    def map_update_batch(self, fd: int, items: Sequence[tuple[bytes, bytes]], elem_flags: int = 0) -> int:
        """How many elements were written: all of them, or the call raised."""
        buffers = self.new_buffers()
        keys, values = buffers.put(b"".join(k for k, _ in items)), buffers.put(b"".join(v for _, v in items))
        attr = abi.MAP_BATCH.pack(
            abi.MapBatchAttr(keys=keys, values=values, n=len(items), map_fd=fd, elem_flags=elem_flags)
        )
        self.call(Cmd.BPF_MAP_UPDATE_BATCH, attr, buffers)
        return abi.MAP_BATCH.unpack(attr).n

    def map_delete_batch(self, fd: int, keys: Sequence[bytes]) -> int:
        """How many elements were deleted."""
        buffers = self.new_buffers()
        attr = abi.MAP_BATCH.pack(abi.MapBatchAttr(keys=buffers.put(b"".join(keys)), n=len(keys), map_fd=fd))
        self.call(Cmd.BPF_MAP_DELETE_BATCH, attr, buffers)
        return abi.MAP_BATCH.unpack(attr).n

    def map_lookup_batch(
        self, fd: int, count: int, token: bytes = b"", *, delete: bool = False
    ) -> tuple[list[tuple[bytes, bytes]], bytes, bool]:
        """(items, token of the next call, whether the end was reached) of at most ``count`` elements."""
        shape, buffers = self.map_shape(fd), self.new_buffers()
        token_size = max(shape.key_size, 4)
        keys, values = buffers.room(count * shape.key_size), buffers.room(count * shape.value_size)
        out_batch = buffers.room(token_size)
        row = abi.MapBatchAttr(buffers.put(token) if token else 0, out_batch, keys, values, count, fd)
        attr, ended = abi.MAP_BATCH.pack(row), False
        cmd = Cmd.BPF_MAP_LOOKUP_AND_DELETE_BATCH if delete else Cmd.BPF_MAP_LOOKUP_BATCH
        try:
            self.call(cmd, attr, buffers)
        except BpfError as e:
            if e.errno != errno.ENOENT:
                raise
            ended = True
        n = abi.MAP_BATCH.unpack(attr).n
        raw_keys, raw_values = buffers.get(keys, n * shape.key_size), buffers.get(values, n * shape.value_size)
        pairs = zip(_cut(raw_keys, shape.key_size), _cut(raw_values, shape.value_size), strict=True)
        return list(pairs), buffers.get(out_batch, token_size), ended

    def map_shape(self, fd: int, key: bytes | None = None, value: bytes | None = None) -> Shape:
        """Sizes of the map behind ``fd``; zeros where it is none, so that the call itself says so. EINVAL for a key or value
        of another size: the kernel would read past it."""
        try:
            info = self.map_info(fd)
        except BpfError:
            return Shape(0, 0)
        shape = Shape(info.key_size, self._value_size(info))
        if key is not None and len(key) != shape.key_size:
            raise BpfError(errno.EINVAL, f"key is {len(key)} bytes, this map's keys are {shape.key_size}")
        if value is not None and len(value) != shape.value_size:
            raise BpfError(errno.EINVAL, f"value is {len(value)} bytes, this map takes {shape.value_size}")
        return shape

    def _value_size(self, info: MapInfo) -> int:
        if info.type in _PER_CPU:
            return round_up(info.value_size, 8) * self.possible_cpus
        return 4 if info.type in _FD_VALUED else info.value_size

    # --- programs -----------------------------------------------------------------------------------------------------
    def prog_load(
        self,
        insns: Sequence[Instruction | Sequence[Instruction]],
        *,
        prog_type: int = 1,
        license: str = "GPL",
        name: str = "",
        log_level: int = 0,
        prog_flags: int = 0,
        expected_attach_type: int = 0,
        btf_fd: int = 0,
        func_info: Sequence[tuple[int, int]] = (),
        line_info: Sequence[tuple[int, int, int, int]] = (),
    ) -> int:
        """BPF_PROG_LOAD: a descriptor. Raises ProgramRejected with the log; a refused load at log_level 0 is tried again at
        level 1 for its log. Raises plain BpfError where the call failed before a verdict (EPERM, EBADF ...)."""
        code, buffers = encode(flatten(*insns)), self.new_buffers()
        row = abi.ProgLoadAttr(
            prog_type=prog_type,
            insn_cnt=len(code) // 8,
            insns=buffers.put(code),
            license=buffers.put(license.encode() + b"\0"),
            prog_flags=prog_flags,
            prog_name=object_name(name),
            expected_attach_type=expected_attach_type,
            prog_btf_fd=btf_fd,
            **_info_fields("func_info", func_info, 8, buffers),
            **_info_fields("line_info", line_info, 16, buffers),
        )
        if not log_level:
            try:
                return self.call(Cmd.BPF_PROG_LOAD, abi.PROG_LOAD.pack(row), buffers)
            except BpfError as e:
                if e.errno not in _REFUSALS and e.errno != errno.EPERM:
                    raise
        return self._load_logged(row, buffers, log_level or 1)

    def _load_logged(self, row: abi.ProgLoadAttr, buffers: CallBuffers, log_level: int) -> int:
        size = LOG_BYTES
        while True:
            log = buffers.room(size)
            attr = abi.PROG_LOAD.pack(row._replace(log_level=log_level, log_size=size, log_buf=log))
            try:
                fd = self.call(Cmd.BPF_PROG_LOAD, attr, buffers)
            except BpfError as e:
                if e.errno == errno.ENOSPC and size < LOG_BYTES_MAX:
                    size = min(max(size * 4, abi.PROG_LOAD.unpack(attr).log_true_size), LOG_BYTES_MAX)
                    continue
                text = _text(buffers.get(log, size))
                if text or e.errno in _REFUSALS:
                    raise ProgramRejected(e.errno or 0, text, self.diagnosis()) from None
                raise
            self.load_logs[fd] = _text(buffers.get(log, size))
            return fd

    def load_log(self, fd: int) -> str:
        """The verifier's log of a program loaded through this process with a log level, else empty."""
        return self.load_logs.get(fd, "")

    def prog_test_run(
        self, fd: int, data: bytes, *, ctx: bytes = b"", repeat: int = 1, room: int | None = None, flags: int = 0
    ) -> TestRun:
        """BPF_PROG_TEST_RUN on ``data``. ``ctx`` is a ``struct __sk_buff``; ``room`` the bytes given to data_out."""
        buffers = self.new_buffers()
        room = len(data) + 256 if room is None else room
        data_out, ctx_out = buffers.room(room), buffers.room(len(ctx))
        row = abi.TestRunAttr(
            prog_fd=fd,
            data_size_in=len(data),
            data_size_out=room,
            data_in=buffers.put(data) if data else 0,
            data_out=data_out if room else 0,
            repeat=repeat,
            ctx_size_in=len(ctx),
            ctx_size_out=len(ctx),
            ctx_in=buffers.put(ctx) if ctx else 0,
            ctx_out=ctx_out if ctx else 0,
            flags=flags,
        )
        attr = abi.TEST_RUN.pack(row)
        self.call(Cmd.BPF_PROG_TEST_RUN, attr, buffers)
        out = abi.TEST_RUN.unpack(attr)
        return TestRun(
            out.retval, buffers.get(data_out, min(out.data_size_out, room)), buffers.get(ctx_out, len(ctx)), out.duration
        )

    def prog_bind_map(self, prog_fd: int, map_fd: int) -> None:
        """The program keeps the map alive as if it used it."""
        attr = abi.BIND_MAP.pack(abi.BindMapAttr(prog_fd, map_fd))
        self.call(Cmd.BPF_PROG_BIND_MAP, attr, self.new_buffers())

    # --- objects by id, by name, by descriptor --------------------------------------------------------------------------
    def prog_get_next_id(self, start: int = 0) -> int:
        """The smallest program id above ``start``. ENOENT at the end."""
        return self._next_id(Cmd.BPF_PROG_GET_NEXT_ID, start)

    def map_get_next_id(self, start: int = 0) -> int:
        return self._next_id(Cmd.BPF_MAP_GET_NEXT_ID, start)

    def btf_get_next_id(self, start: int = 0) -> int:
        return self._next_id(Cmd.BPF_BTF_GET_NEXT_ID, start)

    def _next_id(self, cmd: Cmd, start: int) -> int:
        attr = abi.ID.pack(abi.IdAttr(start))
        self.call(cmd, attr, self.new_buffers())
        return abi.ID.unpack(attr).next_id

    def prog_get_fd_by_id(self, prog_id: int) -> int:
        return self.call(Cmd.BPF_PROG_GET_FD_BY_ID, abi.ID.pack(abi.IdAttr(prog_id)), self.new_buffers())

    def map_get_fd_by_id(self, map_id: int, open_flags: int = 0) -> int:
        attr = abi.ID.pack(abi.IdAttr(map_id, open_flags=open_flags))
        return self.call(Cmd.BPF_MAP_GET_FD_BY_ID, attr, self.new_buffers())

    def btf_get_fd_by_id(self, btf_id: int) -> int:
        return self.call(Cmd.BPF_BTF_GET_FD_BY_ID, abi.ID.pack(abi.IdAttr(btf_id)), self.new_buffers())

    def map_info(self, fd: int) -> MapInfo:
        """BPF_OBJ_GET_INFO_BY_FD of a map."""
        return MAP_INFO.unpack(self._info(fd, bytes(MAP_INFO.struct.size)))

    def btf_info(self, fd: int) -> BtfInfo:
        return BTF_INFO.unpack(self._info(fd, bytes(BTF_INFO.struct.size)))

    def prog_info(self, fd: int) -> ProgInfo:
        """BPF_OBJ_GET_INFO_BY_FD of a program. The address fields are zero: see ``prog_map_ids`` and ``prog_xlated``."""
        return PROG_INFO.unpack(self._info(fd, bytes(PROG_INFO.struct.size)))

    def prog_map_ids(self, fd: int) -> tuple[int, ...]:
        """Ids of the maps a program holds."""
        n, buffers = self.prog_info(fd).nr_map_ids, self.new_buffers()
        ids = buffers.room(4 * n)
        asked = PROG_INFO.struct.pack(*ProgInfo(nr_map_ids=n, map_ids=ids))
        self._info(fd, asked, buffers)
        raw = buffers.get(ids, 4 * n)
        return tuple(int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4))

    def prog_xlated(self, fd: int) -> Program:
        """The program as the kernel keeps it; maps stand by id in BPF_PSEUDO_MAP_FD instructions."""
        size, buffers = self.prog_info(fd).xlated_prog_len, self.new_buffers()
        code = buffers.room(size)
        asked = PROG_INFO.struct.pack(*ProgInfo(xlated_prog_len=size, xlated_prog_insns=code))
        self._info(fd, asked, buffers)
        return decode(buffers.get(code, size))

    def _info(self, fd: int, asked: bytes, buffers: CallBuffers | None = None) -> bytes:
        buffers = self.new_buffers() if buffers is None else buffers
        info = buffers.put(asked)
        self.call(Cmd.BPF_OBJ_GET_INFO_BY_FD, abi.INFO.pack(abi.InfoAttr(fd, len(asked), info)), buffers)
        return buffers.get(info, len(asked))

    def btf_load(self, blob: bytes) -> int:
        """BPF_BTF_LOAD: a descriptor."""
        buffers = self.new_buffers()
        attr = abi.BTF_LOAD.pack(abi.BtfLoadAttr(btf=buffers.put(blob), btf_size=len(blob)))
        return self.call(Cmd.BPF_BTF_LOAD, attr, buffers)

    def obj_pin(self, path: str, fd: int) -> None:
        """A name in the bpf file system that keeps the object alive."""
        buffers = self.new_buffers()
        attr = abi.OBJ.pack(abi.ObjAttr(buffers.put(path.encode() + b"\0"), fd))
        self.call(Cmd.BPF_OBJ_PIN, attr, buffers)

    def obj_get(self, path: str, file_flags: int = 0) -> int:
        """A descriptor of what is pinned at ``path``."""
        buffers = self.new_buffers()
        attr = abi.OBJ.pack(abi.ObjAttr(buffers.put(path.encode() + b"\0"), file_flags=file_flags))
        return self.call(Cmd.BPF_OBJ_GET, attr, buffers)

    @abstractmethod
    def close(self, fd: int) -> None: ...


def object_name(name: str) -> bytes:
    """A name as the kernel takes it: cut to 15 bytes."""
    return name.encode()[: abi.OBJ_NAME_LEN - 1]


def _info_fields(field: str, rows: Sequence[tuple[int, ...]], row_bytes: int, buffers: CallBuffers) -> dict[str, Any]:
    if not rows:
        return {}
    packed = b"".join(v.to_bytes(4, "little") for row in rows for v in row)
    return {f"{field}_rec_size": row_bytes, field: buffers.put(packed), f"{field}_cnt": len(rows)}


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)] if size else []


def _text(log: bytes) -> str:
    return log.split(b"\0", 1)[0].decode(errors="replace")
