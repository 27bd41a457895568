"""The native engine: code found in the cache or compiled, and the calls into it. Knows no LLVM; that is ``compile``'s."""

from __future__ import annotations

import ctypes
import os
from array import array
from dataclasses import replace
from typing import Any, Final, NamedTuple

from netbpf import __version__
from netbpf.abi.context import CTX_RULES
from netbpf.abi.net import LINKTYPE_ETHERNET
from netbpf.engine.base import Totals, UnsupportedProgram, Verdicts
from netbpf.engine.handle import MAP_STRUCT_BYTES
from netbpf.engine.llvm import cache
from netbpf.engine.llvm.abi import (
    ARGS,
    ARGS_BYTES,
    CALL_BACK_META,
    META,
    META_BYTES,
    STATUS_COUNT,
    STATUS_INTERFACE,
    STATUS_ROOM,
    STATUS_TICK,
)
from netbpf.engine.llvm.digest import sha256
from netbpf.engine.llvm.handles import Handles
from netbpf.engine.llvm.objfile import BadObject, MappedCode
from netbpf.engine.llvm.variant import Variant
from netbpf.engine.trace import TraceBuffer
from netbpf.env import Env
from netbpf.errors import EngineFault, InternalError, NetbpfError
from netbpf.ints import bswap
from netbpf.isa.instruction import encode
from netbpf.isa.opcodes import BPF_CALL, BPF_JMP, bpf_class, bpf_op
from netbpf.maps.base import Map
from netbpf.packet.batch import PacketBatch
from netbpf.packet.capture import LAYOUT_ROW_WORDS, RecordLayout, Walkable
from netbpf.packet.receive import DEFAULT_DEVICE, LINK_HEADER_BYTES, Device, receive
from netbpf.packet.sink import CaptureWriter
from netbpf.packet.skbuff import SkBuff
from netbpf.program import VerifiedProgram

NEVER_NS: Final = 0xFFFF_FFFF_FFFF_FFFF
NO_LIMIT: Final = 1 << 62
MAX_TAIL_CALL_CNT: Final = 33
UNPROVED_LOOP_LIMIT: Final = 100_000_000
SK_BUFF_TYPES: Final = frozenset(t for t, rules in CTX_RULES.items() if rules.struct == "__sk_buff")
FAULT_ARGS: Final = ("fault_kind", "fault_pc", "fault_address", "fault_size", "fault_access")
ANY_MAC: Final = 0xFFFF_FFFF_FFFF_FFFF
SCRATCH_BYTES: Final = 1 << 19  # longer than any captured Ethernet frame
OUTPUT_BYTES: Final = 1 << 20
PREFETCH_FROM_BYTES: Final = 192  # packets of this average length and more pay for the prefetch cursor
_PASSED_ON: Final = ("meta", "skb_pkt", "skb_len", "skb_cap", "now_ns", "rng_state", "cpu_id", "tail_calls")
_PREFETCH: Final = ARGS["prefetch"] >> 3
_PACKETS: Final = ARGS["packets"] >> 3  # the first of packets bytes accepted trimmed last_ns next_ns ran_ns status
_ENTRY: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)


class NativeUnavailable(NetbpfError):
    """This platform has no llvmlite and the cache no code: the caller may take the interpreter."""


class NativeEngine:
    """Compiles through LLVM. ``use_cache`` False neither reads nor writes the cache on disk; ``checked`` keeps every run-time
    check, so that a proof gone wrong ends in an EngineFault."""

    name = "native"

    def __init__(self, *, use_cache: bool = True, checked: bool = False) -> None:
        self.use_cache, self.checked = use_cache, checked

    def load(self, program: VerifiedProgram, env: Env, *, view: str = "packet_raw") -> NativeLoaded:
        """Raises UnsupportedProgram for a program type without code here."""
        return NativeLoaded(program, env, use_cache=self.use_cache, checked=self.checked, view=view)


class _Socket(NamedTuple):
    """A struct bpf_sock that a program may read: its bytes, and the row of the regions of a checked program."""

    data: Any
    row: int


class _Code:
    """Native code of one variant, callable."""

    def __init__(self, program: VerifiedProgram, variant: Variant, use_cache: bool) -> None:
        entry, self.mapped = self._find(program, variant, use_cache)
        self.calls_back, self.is_checked = entry.calls_back, entry.is_checked
        functions = self.mapped.functions
        if "run" not in functions:
            raise InternalError("native code without a function run")
        self.run = _ENTRY(functions["run"])
        self.enter = _ENTRY(functions["enter"]) if "enter" in functions else None

    def _find(self, program: VerifiedProgram, variant: Variant, use_cache: bool) -> tuple[cache.Entry, MappedCode]:
        key = cache_key(program, variant) if use_cache else ""
        entry = cache.read(key) if use_cache else None
        if entry is not None:
            try:
                return entry, MappedCode(entry.code)
            except BadObject:
                pass  # written by a version that emitted what this one cannot map: compile afresh
        entry = _compile(program, variant)
        mapped = MappedCode(entry.code)
        if use_cache:
            cache.write(key, entry)
        return entry, mapped


def _compile(program: VerifiedProgram, variant: Variant) -> cache.Entry:
    from netbpf.engine.llvm.loop import module

    try:
        from netbpf.engine.llvm.compile import compile_object
    except ImportError as e:
        raise NativeUnavailable(f"the native engine needs llvmlite, which is not here ({e}); pip install llvmlite") from e
    made = module(program, variant)
    return cache.Entry(compile_object(made.text), made.calls_back, made.is_checked)


def cache_key(program: VerifiedProgram, variant: Variant) -> str:
    """Digest of all that native code depends on: program, proved facts, map shapes, variant, this engine, CPU family."""
    from netbpf.engine.llvm.shape import map_shape

    facts = [(f.ptr, f.map_index) for f in program.facts]
    told = (
        encode(program.insns), program.proved, facts, program.subprogs, [map_shape(m) for m in program.maps],
        program.prog_type, variant, __version__, _own_sources(), os.uname().machine,
    )  # fmt: skip
    return sha256(repr(told).encode()).hexdigest()


def _own_sources() -> list[tuple[str, int, int]]:
    """What tells one version of this folder from another."""
    found, own = [], os.path.dirname(__file__)
    for folder in (own, os.path.join(own, "kernels")):
        with os.scandir(folder) as files:
            found += [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.name.endswith(".py")]
    return sorted(found)


class _Prepared(NamedTuple):
    """A layout of windows, where accepted packets are written, the code that walks the windows, the table of interfaces, and
    the room for what is written."""

    layout: RecordLayout
    device: Device
    output: CaptureWriter | None
    variant: Variant
    code: _Code
    rows: Any
    room: Any


class _Columns:
    """Room for the verdicts of ``rows`` packets, moved on to a ``Verdicts`` after each step."""

    rows = 1 << 16

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts
        self._room = (array("I", bytes(4 * self.rows)), array("I", bytes(4 * self.rows)))
        self._flags = bytearray(self.rows)
        address, self._keep = address_of(self._flags)
        first, second = (column.buffer_info()[0] for column in self._room)
        self.addresses = {"verdict_col": first, "kept_col": second, "trimmed_col": address}

    def take(self, packets: int) -> None:
        """The first ``packets`` rows are filled."""
        self._verdicts.verdict += self._room[0][:packets]
        self._verdicts.kept += self._room[1][:packets]
        self._verdicts.trimmed += self._flags[:packets]


class NativeLoaded:
    """A program as native code. Each variant of the packet loop is made when first needed.

    ``device`` is what packets of a batch or window come in on, ``view`` who looks at them (``packet.receive``).
    """

    def __init__(
        self,
        program: VerifiedProgram,
        env: Env,
        *,
        trace: TraceBuffer | None = None,
        device: Device = DEFAULT_DEVICE,
        use_cache: bool = True,
        checked: bool = False,
        view: str = "packet_raw",
    ) -> None:
        if program.prog_type not in SK_BUFF_TYPES:
            raise UnsupportedProgram(f"the native engine runs programs on an sk_buff, not of type {program.prog_type}")
        self.program, self.env, self.device, self._use_cache, self._checked = program, env, device, use_cache, checked
        self.view = view
        self.trace = TraceBuffer() if trace is None else trace
        self._codes: dict[Variant, _Code] = {}
        self._family: dict[int, dict[Variant, _Code]] = {id(program): self._codes}  # of all programs that tail calls reach
        self._args = (ctypes.c_uint64 * (ARGS_BYTES // 8))()
        self._args_address = ctypes.addressof(self._args)
        self._prepared: _Prepared | None = None  # what Args and Meta hold for windows; None when they served something else
        self._meta = (ctypes.c_uint64 * (META_BYTES // 8))()
        self._scratch = ctypes.create_string_buffer(SCRATCH_BYTES)
        self._maps = (ctypes.c_uint64 * max(1, len(program.maps)))(*[m.address for m in program.maps])
        self._trace_clock = hasattr(env, "set_time")
        self._set("scratch", ctypes.addressof(self._scratch))
        self._set("maps", ctypes.addressof(self._maps))
        self.handles = Handles(program)
        self._set("handles", self.handles.table_address)
        self.regions: Any = None  # of a checked program
        self._bridge: Any = None
        self._active: _Code | None = None  # what is running, for call backs
        self._skb: SkBuff | None = None  # the packet of run_one
        self._targets: dict[int, NativeLoaded] = {}  # of tail calls, by id()

    # --- the argument block --------------------------------------------------------------------------------------------
    def _set(self, name: str, value: int) -> None:
        self._args[ARGS[name] >> 3] = value

    def _set_all(self, **values: int) -> None:
        for name, value in values.items():
            self._set(name, value)

    def _get(self, name: str) -> int:
        return self._args[ARGS[name] >> 3]

    def _set_meta(self, name: str, value: int) -> None:
        self._meta[META[name] >> 3] = value

    def _code(self, variant: Variant) -> _Code:
        code = self._codes.get(variant)
        if code is None:
            code = self._codes[variant] = _Code(self.program, variant, self._use_cache)
        if code.is_checked and self.regions is None:
            self._make_regions()
        if code.calls_back and self._bridge is None:
            from netbpf.engine.llvm.bridge import Bridge

            self._bridge = Bridge(self, self.trace)
            self._set("callback", self._bridge.address)
        return code

    def _variant(self, kind: str) -> Variant:
        return Variant(kind, trace_clock=self._trace_clock, checked=self._checked)

    def _make_regions(self) -> None:
        from netbpf.engine.llvm.regions import Regions

        self.regions = Regions()
        for m in self.program.maps:
            self.regions.add_map(m)
        self.handles.on_new = self._tell_map
        for address, m in self.handles.known():
            self._tell_map(address, m)
        self.tell_regions()

    def _tell_map(self, address: int, m: Map) -> None:
        self.regions.add(f"struct bpf_map of {m.spec.name!r}", address, MAP_STRUCT_BYTES, writable=False)
        if m not in self.program.maps:
            self.regions.add_map(m)
        self.tell_regions()

    def tell_regions(self) -> None:
        """The table of regions may have moved."""
        self._set_all(regions=self.regions.address, n_regions=self.regions.count)

    def _call(self, code: _Code) -> int:
        env: Any = self.env
        if self._trace_clock:
            self._set("now_ns", env.now_ns)
            self._set("rng_state", env.rng_state)
        else:
            self._set("now_ns", env.ktime_ns())
            self._set("rng_state", self._get("rng_state") or env.random_u32() << 32 | env.random_u32() | 1)
        self._set("cpu_id", env.cpu_id())
        result = self._enter_native(code, code.run)
        if self._trace_clock:
            env.now_ns, env.rng_state = self._get("now_ns"), self._get("rng_state")
        return result

    def _enter_native(self, code: _Code, function: Any) -> int:
        """Run a function of ``code``; what it returned. Raises what ended the run."""
        if code.calls_back or code.is_checked:
            self._set_all(fault=0, fault_kind=0, depth=0, budget=UNPROVED_LOOP_LIMIT)
        if self.regions is not None:
            self.regions.forget_frames()
        self._active = code
        result = int(function(self._args_address))
        if code.calls_back or code.is_checked:
            self._raise_fault()
        return result

    def _raise_fault(self) -> None:
        if self._bridge is not None:
            self._bridge.raise_fault()
        if self._get("fault"):
            from netbpf.engine.llvm.faults import native_fault

            raise native_fault(self, {name: self._get(name) for name in FAULT_ARGS})

    def fault(self, pc: int, message: str, address: int | None = None) -> EngineFault:
        """An EngineFault that names the instruction at ``pc``."""
        from netbpf.isa.disasm import format_insn

        insns = self.program.insns
        text = format_insn(insns[pc], insns[pc + 1] if pc + 1 < len(insns) else None) if pc < len(insns) else "past the end"
        return EngineFault(message, pc=pc, insn_text=text, address=address)

    def sync_env(self) -> Any:
        """Bring the Env to where native code is, for a call back; ``take_env`` brings its changes back."""
        if self._trace_clock:
            env: Any = self.env
            env.now_ns, env.rng_state = self._get("now_ns"), self._get("rng_state")

    def take_env(self) -> None:
        if self._trace_clock:
            env: Any = self.env
            self._set("rng_state", env.rng_state)

    # --- one packet ----------------------------------------------------------------------------------------------------
    def run_memory(self, memory: bytearray) -> int:
        """Run with R1 the address of ``memory``, 0 when it is empty, and R2 its length, as suites for raw programs do; R0.

        Raises EngineFault.
        """
        code = self._code(self._variant("memory"))
        self._prepared = None
        address, keep = address_of(memory)
        row = self.regions.add("the program's memory", address, len(memory)) if memory and self.regions is not None else None
        self._set_all(r1=address, r2=len(memory), skb_cap=0, skb_len=0, meta=ctypes.addressof(self._meta))
        if row is not None:
            self.tell_regions()
        try:
            return self._call(code)
        finally:
            del keep
            if row is not None:
                self.regions.drop(row)

    def run_one(self, skb: SkBuff) -> int:
        """Run once; the full 64-bit R0. Raises EngineFault."""
        code = self._code(self._variant("one"))
        head = ctypes.create_string_buffer(skb.head, max(len(skb.head), 1))
        self._prepared = None
        self._describe(skb)
        sock = self._describe_socket(skb)
        self._set("meta", ctypes.addressof(self._meta))
        self._set("skb_pkt", ctypes.addressof(head) + skb.data_off)
        self._set("skb_len", skb.len)
        self._set("skb_cap", min(len(skb.head) - skb.data_off, skb.len) & NEVER_NS)
        self._set("tail_calls", 0)
        self._skb = skb
        try:
            r0 = self._call(code)
        finally:
            self._skb = None
            if sock is not None and self.regions is not None:
                self.regions.drop(sock.row)
        at = META["cb0"]
        skb.cb[:] = bytes(memoryview(self._meta).cast("B")[at : at + 20])
        return r0

    def _describe_socket(self, skb: SkBuff) -> _Socket | None:
        """The socket that owns the packet into memory of its own; None where there is none."""
        self._set_meta("sk", 0)
        if not skb.has_sk:
            return None
        from netbpf.engine.interp.context import bpf_sock

        data = ctypes.create_string_buffer(bpf_sock(skb))
        self._set_meta("sk", ctypes.addressof(data))
        if self.regions is None:
            return _Socket(data, -1)
        row = self.regions.add("struct bpf_sock", ctypes.addressof(data), len(data) - 1, writable=False)
        self.tell_regions()
        return _Socket(data, row)

    def _describe(self, skb: SkBuff) -> None:
        """The sk_buff into Meta."""
        from netbpf.packet.context import FIELD_VALUES, WORD_VALUES, context_value

        for name in FIELD_VALUES:
            if name in META:
                self._set_meta(name, context_value(skb, name))
        for name in ("data_off", "mac_header", "network_header", "transport_header", "sk_cookie", "sk_uid"):
            self._set_meta(name, getattr(skb, name) & NEVER_NS)
        raw = memoryview(self._meta).cast("B")
        for name, first, words in (("cb", "cb0", 5), ("remote_ip6", "remote_ip6_0", 4), ("local_ip6", "local_ip6_0", 4)):
            for word in range(words):
                at = META[first] + 4 * word
                raw[at : at + 4] = WORD_VALUES[name](skb, word).to_bytes(4, "little")

    # --- what call backs ask for -----------------------------------------------------------------------------------------
    def current_skb(self) -> SkBuff:
        """The packet at hand in a call back."""
        if self._skb is not None:
            return self._skb
        frame = ctypes.string_at(self._get("skb_pkt"), self._get("skb_cap"))
        meta = self._get("meta")
        proto, present, tpid, network = (
            ctypes.c_uint64.from_address(meta + META[name]).value for name in (*CALL_BACK_META, "network_header")
        )
        skb = SkBuff(frame, self._get("skb_len"), network_header=network, mark=self.device.mark)
        skb.protocol, skb.vlan_present, skb.vlan_proto = bswap(proto, 2), present, bswap(tpid, 2)
        return skb

    def call_subprog(self, index: int, regs: tuple[int, ...]) -> int:
        """Run a subprogram for a helper that takes a callback; its R0."""
        if self._active is None or self._active.enter is None:
            raise InternalError("a callback without a program running")
        self._set("subprog", index)
        for n, value in enumerate(regs, 1):
            self._set(f"r{n}", value)
        self.take_env()
        result = int(self._active.enter(ctypes.addressof(self._args)))
        self._raise_fault()
        self.sync_env()
        return result

    def tail_call(self, programs: Any, index: int) -> int:
        """Run the program at ``index`` of a program array on the packet at hand; its R0. ``tail_taken``: whether there is one."""
        target = programs.get(index) if self._get("tail_calls") < MAX_TAIL_CALL_CNT else None
        self._set("tail_taken", target is not None)
        if target is None:
            return 0
        self._set("tail_calls", self._get("tail_calls") + 1)
        loaded = self._target(target if isinstance(target, VerifiedProgram) else target.program)
        loaded._skb = self._skb
        loaded._set_all(**{n: self._get(n) for n in _PASSED_ON})
        code = loaded._code(loaded._variant("one"))
        result = loaded._enter_native(code, code.run)
        for name in ("rng_state", "tail_calls"):
            self._set(name, loaded._get(name))
        return result

    def _target(self, program: VerifiedProgram) -> NativeLoaded:
        """What runs a tail call's target for this program; code is shared by all that lead to it."""
        loaded = self._targets.get(id(program))
        if loaded is None:
            loaded = NativeLoaded(
                program, self.env, trace=self.trace, device=self.device, use_cache=self._use_cache, checked=self._checked
            )
            loaded._family = self._family
            loaded._codes = self._family.setdefault(id(program), loaded._codes)
            self._targets[id(program)] = loaded
        return loaded

    # --- many packets --------------------------------------------------------------------------------------------------
    def run(self, batch: PacketBatch) -> Verdicts:
        """Run every packet of the batch in order. Raises EngineFault."""
        n = len(batch)
        out = Verdicts(array("I", bytes(4 * n)), array("I", bytes(4 * n)), bytearray(n))
        done = 0
        while done < n:
            if self._is_walked(batch.linktype):
                done = self._run_rows(batch, out, done)
            if done < n:
                self._run_row_slowly(batch, out, done)
                done += 1
        return out

    def _run_rows(self, batch: PacketBatch, out: Verdicts, first: int) -> int:
        """Rows from ``first`` on until one that native code leaves to Python; its index."""
        code = self._code(replace(self._variant_of("columns", batch.linktype), results=True))
        self._prepared = None
        buffer, keep = address_of(batch.buffer)
        self._defaults(batch.linktype)
        results = ((out.verdict, "verdict_col", 4), (out.kept, "kept_col", 4))
        for column, name, size in results:
            self._set(name, column.buffer_info()[0] + size * first)
        flags, keep_flags = address_of(out.trimmed)
        directions, keep_directions = address_of(batch.direction or bytearray(len(batch)))
        self._set("trimmed_col", flags + first)
        self._set("direction_col", directions)
        for name in ("offset", "caplen", "wirelen", "interface"):
            self._set(f"{name}_col", getattr(batch, name).buffer_info()[0])
        self._set("ts_col", batch.ts_ns.buffer_info()[0])
        self._set_all(buf=buffer, pos=first, end=len(batch), stop_ns=NEVER_NS, max_packets=NO_LIMIT, prefetch=NO_LIMIT)
        self._call(code)
        del keep, keep_flags, keep_directions
        done = self._get("pos")
        if self._trace_clock and done > first:
            env: Any = self.env
            env.set_time(batch.ts_ns[done - 1])
        return done

    def _run_row_slowly(self, batch: PacketBatch, out: Verdicts, i: int) -> None:
        """A row that native code left: built by ``receive``; a frame that reaches no socket counts as dropped."""
        record = batch.record(i)
        skb = receive(record, self.device, self.view)
        if skb is None:
            return
        if self._trace_clock:
            env: Any = self.env
            env.set_time(record.ts_ns)
        verdict = self.run_one(skb) & 0xFFFF_FFFF
        out.verdict[i], out.kept[i] = verdict, min(verdict, skb.len)
        out.trimmed[i] = 0 < verdict < skb.len

    def _is_walked(self, linktype: int) -> bool:
        """Whether native code knows the packets of a link type: a file's as they lie there, for a socket Ethernet frames."""
        return self.view == "file" or (self.view == "packet_raw" and linktype == LINKTYPE_ETHERNET)

    def _variant_of(self, kind: str, linktype: int) -> Variant:
        """The loop for packets of a link type."""
        return replace(self._variant(kind), in_file=self.view == "file", ethernet=linktype == LINKTYPE_ETHERNET)

    def _defaults(self, linktype: int) -> None:
        """Meta and Args as every frame of this link type on this device has them."""
        d = self.device
        ctypes.memset(self._meta, 0, META_BYTES)
        for name in ("queue_mapping", "napi_id", "hash", "mark", "priority"):
            self._set_meta(name, getattr(d, name))
        for name in ("network_header", "transport_header"):
            self._set_meta(name, LINK_HEADER_BYTES.get(linktype, 0))
        self._set("meta", ctypes.addressof(self._meta))
        self._set("ifindex", d.ifindex)
        self._set("device_mac", ANY_MAC if d.mac is None else int.from_bytes(d.mac, "little"))

    def can_walk(self, layout: RecordLayout) -> bool:
        """Whether ``walk`` takes windows of this layout: some interface gives packets that native code knows."""
        return bool(layout.interfaces) and self._is_walked(_walked_linktype(layout))

    def walk(
        self,
        window: Walkable,
        totals: Totals,
        *,
        stop_ns: int = NEVER_NS,
        max_packets: int = NO_LIMIT,
        output: CaptureWriter | None = None,
        verdicts: Verdicts | None = None,
    ) -> int | None:
        """See WindowWalker."""
        columns = None if verdicts is None else _Columns(verdicts)
        while True:
            code = self._ready(window.layout, output, columns is not None)
            most = max_packets if columns is None else min(max_packets, columns.rows)
            packets, status = self._step(code, window, totals, stop_ns, most, columns)
            max_packets -= packets
            if columns is not None:
                columns.take(packets)
            if output is not None:
                self._empty(output, status)
            if status == STATUS_TICK:
                return self._get("next_ns")
            goes_on = status in (STATUS_ROOM, STATUS_INTERFACE) or (status == STATUS_COUNT and columns is not None)
            if not goes_on or not max_packets:
                return None

    def _step(
        self, code: _Code, window: Walkable, totals: Totals, stop_ns: int, most: int, columns: _Columns | None
    ) -> tuple[int, int]:
        """One call into native code; how many packets it ran and why it stopped."""
        args, start = self._args, window.start
        fixed = getattr(window, "address", 0)  # of memory that stays where it is: a ring's
        buffer, keep = (fixed, None) if fixed else address_of(window.buffer)
        # rows of ARGS, one after the other: a step of a replay is short, and this is most of what it costs
        args[0:5] = [buffer, start, window.end, stop_ns, most]
        ahead = totals.bytes >= PREFETCH_FROM_BYTES * totals.packets or window.layout.kind == "ring"  # written by another CPU
        args[_PREFETCH] = start if ahead else NO_LIMIT
        if columns is not None:
            self._set_all(**columns.addresses)
        self._set("meta", ctypes.addressof(self._meta))  # a call back leaves that of its packet there
        self._call(code)
        del keep
        packets, size, accepted, trimmed, last_ns, _, ran_ns, status = args[_PACKETS : _PACKETS + 8]
        window.advance(args[1] - start, packets)
        totals.packets += packets
        totals.bytes += size
        totals.accepted += accepted
        totals.dropped += packets - accepted
        totals.trimmed += trimmed
        totals.last_ns = max(totals.last_ns, last_ns)
        if self._trace_clock and packets:
            env: Any = self.env
            env.set_time(ran_ns)
        return packets, status

    def _empty(self, output: CaptureWriter, status: int) -> None:
        """Hand on what was written, and describe the interface that the last record is the first of."""
        assert self._prepared is not None
        prepared, used, written = self._prepared, self._get("out_used"), self._get("out_packets")
        with memoryview(prepared.room).cast("B") as room:
            if status == STATUS_INTERFACE:
                mark, row = self._get("out_mark"), self._get("out_interface")
                output.append_raw(room[:mark], written - 1)
                layout = prepared.layout
                number = output.interface_number(layout.interfaces[row].linktype, layout.first_interface + row)
                prepared.rows[LAYOUT_ROW_WORDS * row + 5] = number + 1
                room[mark + 8 : mark + 12] = number.to_bytes(4, "little")
                output.append_raw(room[mark:used], 1)
            elif written:
                output.append_raw(room[:used], written)
        self._set("out_used", 0)

    def _ready(self, layout: RecordLayout, output: CaptureWriter | None, results: bool) -> _Code:
        """The code for windows of this layout, Args made ready for it."""
        known = self._prepared
        if known is None or known.output is not output or known.device is not self.device or (
            layout is not known.layout and layout != known.layout
        ):
            known = self._prepared = self._prepare(layout, output)
        if results:
            return self._code(replace(known.variant, results=True))
        return known.code

    def _prepare(self, layout: RecordLayout, output: CaptureWriter | None) -> _Prepared:
        """What stays the same from window to window of one layout, into Args."""
        linktype = _walked_linktype(layout)
        variant = Variant.of_layout(layout, self._variant_of(layout.kind, linktype))
        if output is not None:
            variant = replace(variant, output=output.kind, output_unit_ns=output.unit_ns)
        code = self._code(variant)
        self._defaults(linktype)
        rows = self._layouts(layout)
        first = layout.interfaces[0]
        room = ctypes.create_string_buffer(OUTPUT_BYTES if output is not None else 1)
        self._set_all(
            snaplen=first.snaplen, max_caplen=layout.max_caplen, ts_scale=first.ts_multiplier, layouts=ctypes.addressof(rows),
            n_layouts=len(layout.interfaces), first_interface=layout.first_interface,
            out=ctypes.addressof(room), out_size=len(room), out_used=0,
        )  # fmt: skip
        return _Prepared(layout, self.device, output, variant, code, rows, room)

    def prepare(self, layout: RecordLayout) -> None:
        """Have the code for windows of this layout at hand."""
        self._ready(layout, None, False)

    def on_maps(self, maps: tuple[Map, ...], env: Env) -> NativeLoaded:
        """The same program, and the same code, on other maps of the same shapes."""
        other = NativeLoaded(
            replace(self.program, maps=maps),
            env,
            device=self.device,
            use_cache=self._use_cache,
            checked=self._checked,
            view=self.view,
        )
        other._codes = self._codes
        return other

    def left_behind(self) -> tuple[Any, ...] | None:
        """What ``replay.quick`` needs to walk plain pcap windows as this has just done: machine code, its entry, its places to
        fill in, the argument block, the context, the block's fields. None where there is more to it."""
        prepared = self._prepared
        if prepared is None or prepared.layout.kind != "pcap" or prepared.output is not None or self.program.maps:
            return None
        v, code = prepared.variant, prepared.code
        calls = any(bpf_class(i.code) == BPF_JMP and bpf_op(i.code) == BPF_CALL for i in self.program.insns)
        if v.big_endian or v.wirelen_first or v.header_bytes != 16 or not v.ethernet:
            return None
        if calls or code.calls_back or code.is_checked or v.results:
            return None
        mapped = code.mapped
        if not mapped.is_movable:
            return None
        fields = {name: at >> 3 for name, at in ARGS.items()}
        image = bytes(mapped.memory)
        return image, mapped.offsets["run"], mapped.stubs, bytes(self._args), bytes(self._meta), fields

    def _layouts(self, layout: RecordLayout) -> Any:
        """The table of interfaces for a loop over windows; see capture.LAYOUT_ROW_WORDS."""
        rows = (ctypes.c_uint64 * (LAYOUT_ROW_WORDS * len(layout.interfaces)))()
        for k, i in enumerate(layout.interfaces):
            usable = i.linktype == _walked_linktype(layout) and i.ts_multiplier * i.ts_divisor <= NEVER_NS
            row: list[Any] = [usable, i.snaplen, i.ts_multiplier & NEVER_NS, i.ts_divisor & NEVER_NS, i.ts_offset_ns & NEVER_NS]
            rows[LAYOUT_ROW_WORDS * k : LAYOUT_ROW_WORDS * k + 5] = row
        return rows


def _walked_linktype(layout: RecordLayout) -> int:
    """The link type of the records that a loop walks, the rest being left to Python: Ethernet where an interface has it."""
    linktypes = [i.linktype for i in layout.interfaces]
    return LINKTYPE_ETHERNET if LINKTYPE_ETHERNET in linktypes else linktypes[0]


def address_of(buffer: Any) -> tuple[int, Any]:
    """Address of a bytes-like object's first byte, and what keeps it there while used."""
    if isinstance(buffer, bytes):
        return ctypes.cast(ctypes.c_char_p(buffer), ctypes.c_void_p).value or 0, buffer
    view = memoryview(buffer)
    if not view.nbytes:
        return 0, view
    if view.readonly:
        data = view.tobytes()
        return address_of(data)[0], data
    pin = (ctypes.c_char * view.nbytes).from_buffer(view)
    return ctypes.addressof(pin), pin
