"""What is read out of clang objects: programs, maps, references, types; and how the wrong ones are refused."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from support.objects import NAMES, OBJECTS, SETTINGS, object_bytes, read

from netbpf.abi.maps import MapType
from netbpf.btf import KIND_DATASEC, Btf
from netbpf.errors import SourceError, UsageError
from netbpf.host.loader import load_spec
from netbpf.host.sim.host import SimHost
from netbpf.isa.opcodes import BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC, BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE
from netbpf.program import ProgramSpec
from netbpf.sources.elf import list_programs, read_object
from netbpf.sources.elf.data import map_name
from netbpf.sources.elf.sections import section_kind
from netbpf.sources.load import ObjectOptions, parse_program, read_program, split_object_name


def maps_of(spec: ProgramSpec) -> dict[str, tuple[int, int, int, int, int]]:
    return {
        d.spec.name: (d.spec.map_type, d.spec.key_size, d.spec.value_size, d.spec.max_entries, d.spec.map_flags)
        for d in spec.maps
    }


# --- programs ---------------------------------------------------------------------------------------------------------
def test_programs_by_symbol_and_section() -> None:
    entries = list_programs(object_bytes("flow_tail_calls"))
    assert {(e.name, e.section) for e in entries} == {
        ("read_vlan", "socket/vlan"),
        ("read_ip", "socket/ip"),
        ("read_ipv6", "socket/ipv6"),
        ("read_transport", "socket/transport"),
        ("filter", "socket"),
    }
    assert {e.prog_type for e in entries} == {1}
    assert read("flow_tail_calls", "read_ip").name == read("flow_tail_calls", "socket/ip").name == "read_ip"


def test_the_one_program_no_array_names_is_meant() -> None:
    spec = read("flow_tail_calls")
    assert spec.name == "filter"
    assert {o.name for o in spec.others} == {"read_ip", "read_ipv6", "read_vlan", "read_transport"}
    assert all(o.maps == spec.maps and o.btf == spec.btf for o in spec.others)


def test_several_programs_need_a_name() -> None:
    with pytest.raises(SourceError, match=r"globals.o: 3 programs: name one: .*sum_up \(socket\)"):
        read("globals")
    with pytest.raises(SourceError, match="2 programs in section 'socket': name one"):
        read("globals", "socket")
    with pytest.raises(SourceError, match="no program 'nope'"):
        read("globals", "nope")


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("socket", 1), ("socket/http", 1), ("socket1", 1), ("filter", 1), ("?socket", 1), ("classifier", 3), ("tc", 3),
        ("action", 4), ("xdp", 6), ("cgroup_skb/egress", 8), ("cgroup/connect4", 18), ("sk_lookup/x", 30),
        ("sockets", None), ("fentry/x", None), ("", None),
    ],
)  # fmt: skip
def test_section_names(section: str, kind: int | None) -> None:
    row = section_kind(section)
    assert (row.prog_type if row else None) == kind


def test_license_and_names() -> None:
    assert read("globals", "sum_up").license == "Dual MIT/GPL"
    assert read("legacy_maps").license == "GPL"


# --- maps -------------------------------------------------------------------------------------------------------------
def test_maps_with_types() -> None:
    assert maps_of(read("flow_tail_calls")) == {
        "flows": (MapType.HASH, 16, 16, 1024, 0),
        "scratch": (MapType.PERCPU_ARRAY, 4, 16, 1, 0),
        "steps": (MapType.PROG_ARRAY, 4, 4, 4, 0),
    }
    steps = next(d for d in read("flow_tail_calls").maps if d.spec.name == "steps")
    assert {(k[0], name) for k, name in steps.slots} == {
        (0, "read_ip"),
        (1, "read_ipv6"),
        (2, "read_vlan"),
        (3, "read_transport"),
    }


def test_maps_of_the_old_kind_and_no_types() -> None:
    spec = read("legacy_maps")
    assert maps_of(spec) == {"packets": (1, 4, 8, 256, 0), "bytes": (2, 4, 8, 256, 0)}
    assert (spec.btf, spec.func_info, spec.line_info) == (b"", (), ())


def test_maps_in_maps() -> None:
    decls = {d.spec.name: d for d in read("map_in_map").maps}
    inner = decls["by_direction"].spec.inner
    assert inner is not None
    assert (inner.map_type, inner.value_size, inner.max_entries) == (MapType.ARRAY, 8, 256)
    assert decls["by_version"].spec.inner is not None
    assert [(k[0], n) for k, n in decls["by_direction"].slots] == [(0, "incoming"), (4, "outgoing")]
    assert decls["by_version"].slots == ((b"\4\0\0\0", "incoming"),)


def test_rings_are_rounded_and_pins_named() -> None:
    decls = {d.spec.name: d for d in read("ring").maps}
    assert decls["events"].spec.max_entries == 8192
    assert decls["netbpf_lost"].pin_path == "/sys/fs/bpf/netbpf_lost"


def test_pinning_by_name_inside_the_host() -> None:
    host, spec = SimHost(), read("ring")
    with host.process() as first, host.process() as second:
        mine = load_spec(first, spec)
        first.map_update_elem(mine.map_fds["netbpf_lost"], bytes(4), b"\7".ljust(8, b"\0"))
        theirs = load_spec(second, spec)
        assert second.map_lookup_elem(theirs.map_fds["netbpf_lost"], bytes(4))[0] == 7
        other = tuple(d._replace(spec=d.spec._replace(max_entries=2)) if d.pin_path else d for d in spec.maps)
        with pytest.raises(OSError, match="another shape"):
            load_spec(second, spec._replace(maps=other))


def test_global_data() -> None:
    decls = {d.spec.name: d for d in read("globals", "sum_up").maps}
    assert set(decls) == {"globals.rodata", "globals.data", "globals.bss", ".data.lengths", "globals.kconfig"}
    assert decls["globals.data"].contents == ((bytes(4), (1000000).to_bytes(8, "little")),)
    assert decls["globals.rodata"].frozen
    assert not decls["globals.data"].frozen
    assert decls["globals.bss"].contents == ()


@pytest.mark.parametrize(
    ("path", "section", "name"),
    [("a/b/sockex.bpf.o", ".rodata", "sockex.rodata"), ("verylongname.o", ".bss", "verylong.bss"), ("x-y.o", ".data", "x_y.data"),
     ("x.o", ".rodata.str1.1", ".rodata.str1.1"), ("a_long_object.o", ".kconfig", "a_long_.kconfig")],
)  # fmt: skip
def test_names_of_data_maps_are_libbpfs(path: str, section: str, name: str) -> None:
    assert map_name(path, section) == name


def test_settings_need_values_of_their_type() -> None:
    data = object_bytes("globals")
    with pytest.raises(SourceError, match="extern CONFIG_BPF_SYSCALL has no value and is not weak"):
        read_object(data, "g.o", program="sum_up")
    for name, value in (("CONFIG_BPF_SYSCALL", "m"), ("CONFIG_HZ", "much"), ("CONFIG_HZ", "99999999999"), ("CONFIG_HZ", "y")):
        with pytest.raises(SourceError, match=f"extern {name}"):
            read_object(data, "g.o", program="sum_up", kconfig=SETTINGS | {name: value})


# --- code -------------------------------------------------------------------------------------------------------------
def test_functions_are_joined_across_sections() -> None:
    spec = read("globals", "sum_up")
    btf = Btf.parse(spec.btf)
    names = [btf.name(type_id) for _, type_id in spec.func_info]
    assert names == ["sum_up", "kind_of", "weight", "length_class", "is_long"]
    starts = [pc for pc, _ in spec.func_info]
    calls = {pc + 1 + i.imm for pc, i in enumerate(spec.insns) if i.code == 0x85 and i.src == BPF_PSEUDO_CALL}
    assert calls == set(starts[1:])
    assert all(0 <= row[0] < len(spec.insns) for row in spec.line_info)


def test_references_to_data_carry_offsets() -> None:
    spec = read("globals", "settings_of")
    index = {d.spec.name: i for i, d in enumerate(spec.maps)}
    values = {(i.imm, spec.insns[pc + 1].imm) for pc, i in enumerate(spec.insns) if i.code == 0x18}
    assert all(i.src == BPF_PSEUDO_MAP_IDX_VALUE for i in spec.insns if i.code == 0x18)
    assert {at for at, _ in values} == {index["globals.kconfig"], index["globals.bss"]}


def test_an_address_of_code() -> None:
    spec = read("callback")
    pc = next(pc for pc, i in enumerate(spec.insns) if i.src == BPF_PSEUDO_FUNC)
    assert pc + 1 + spec.insns[pc].imm == spec.func_info[1][0]
    assert spec.insns[0].code
    assert any(i.src == BPF_PSEUDO_MAP_IDX for i in spec.insns)


def test_types_are_sized_for_the_kernel() -> None:
    btf = Btf.parse(read("globals", "sum_up").btf)
    for t in btf.types:
        if t.kind == KIND_DATASEC:
            assert t.size_or_type > 0, btf.string(t.name_off)
            assert [row[1] for row in t.rows] == sorted(row[1] for row in t.rows)


# --- by path and option -----------------------------------------------------------------------------------------------
def test_programs_by_path() -> None:
    path = str(OBJECTS / "globals.o")
    options = ObjectOptions(kconfig=SETTINGS)
    assert read_program(f"{path}:sum_up", options).name == "sum_up"
    assert read_program(path, replace(options, program="settings_of")).name == "settings_of"
    assert split_object_name("a.o:socket/x") == ("a.o", "socket/x")
    assert split_object_name("a.s") == ("a.s", "")
    with pytest.raises(SourceError, match="no clang object"):
        parse_program(b"r0 = 0\nexit\n", "x.s", ObjectOptions("main"))


def test_settings_on_the_command_line() -> None:
    from netbpf.cli.main import main

    path = str(OBJECTS / "globals.o")
    assert main(["verify", f"{path}:sum_up", "--kconfig", "CONFIG_BPF_SYSCALL=y", "--log-level", "0"]) == 0
    assert main(["verify", path, "--symbol", "sum_up", "--kconfig", "CONFIG_BPF_SYSCALL"]) == UsageError.exit_code


def test_listing_with_source(capsys: pytest.CaptureFixture[str]) -> None:
    from netbpf.cli.main import main

    assert main(["disasm", str(OBJECTS / "bytes_by_protocol.o")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["int count(struct __sk_buff * skb):", "; int count(struct __sk_buff *skb)"]
    assert "; __u32 protocol = load_byte(skb, ETH_HLEN + 9);" in lines
    assert main(["disasm", "--no-source", str(OBJECTS / "bytes_by_protocol.o")]) == 0
    assert not any(line.startswith(";") for line in capsys.readouterr().out.splitlines())


def test_dumps_by_types(capsys: pytest.CaptureFixture[str]) -> None:
    from netbpf.cli.main import main

    pcap = str(OBJECTS.parents[2] / "pcaps" / "vlan.pcap")
    assert main(["replay", "--prog", str(OBJECTS / "flow_hash.o"), pcap, "-q", "--dump", "json"]) == 0
    assert '"formatted":{"key":{"source":' in capsys.readouterr().out


# --- refused ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (4, 1, "no 64-bit object"),
        (5, 2, r"big-endian object \(bpfeb\)"),
        (18, 62, "machine 62 is no BPF"),
        (16, 2, "type 2 is no relocatable object"),
        (58, 63, "section headers of 63 bytes"),
    ],
)
def test_files_that_are_none(at: int, value: int, words: str) -> None:
    data = bytearray(object_bytes("bytes_by_protocol"))
    data[at] = value
    with pytest.raises(SourceError, match=rf"x.o: ELF header, offset .*{words}"):
        read_object(bytes(data), "x.o")


@pytest.mark.parametrize("size", [4, 15, 16, 63, 64, 500])
def test_files_that_end_too_soon(size: int) -> None:
    with pytest.raises(SourceError, match="ELF header, offset"):
        read_object(object_bytes("bytes_by_protocol")[:size], "x.o")


# --- built again ------------------------------------------------------------------------------------------------------
CLANG = shutil.which("clang")
STRIP = shutil.which("llvm-strip")
needs_clang = pytest.mark.skipif(not CLANG or not STRIP, reason="needs clang and llvm-strip")


@needs_clang
def test_sources_build_what_is_shipped(tmp_path: Path) -> None:
    """Same programs and maps from this machine's clang; the same instructions where it is the clang that built them."""
    assert CLANG is not None
    subprocess.run([str(OBJECTS / "build.sh"), str(tmp_path)], check=True, capture_output=True, timeout=120)
    same_clang = " 14.0.6" in subprocess.run([CLANG, "--version"], capture_output=True, text=True, check=True).stdout
    for name in NAMES:
        shipped, built = object_bytes(name), object_bytes(name, tmp_path)
        programs = {e.name for e in list_programs(shipped)}
        assert programs == {e.name for e in list_programs(built)}
        for program in sorted(programs):
            old, new = read(name, program), read(name, program, tmp_path)
            assert maps_of(old) == maps_of(new)
            assert old.insns == new.insns or not same_clang
            with SimHost().process() as process:
                load_spec(process, new)


@needs_clang
def test_both_byte_orders(tmp_path: Path) -> None:
    source = tmp_path / "x.c"
    source.write_text('__attribute__((section("socket"), used)) int f(void *c) { return 0; }')
    assert CLANG is not None
    for target, words in (("bpfel", ""), ("bpfeb", "big-endian")):
        subprocess.run([CLANG, "-target", target, "-O2", "-c", str(source), "-o", str(tmp_path / "x.o")], check=True, timeout=60)
        data = (tmp_path / "x.o").read_bytes()
        if words:
            with pytest.raises(SourceError, match=words):
                read_object(data, "x.o")
        else:
            assert read_object(data, "x.o").name == "f"
