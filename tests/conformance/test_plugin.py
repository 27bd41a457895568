"""The plugin as bpf_conformance's runner starts it: a process per test, memory as one argument, the program on stdin."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.elf_builder import Builder
from support.vectors import ROOT, vectors_dir

from netbpf.isa.instruction import encode
from netbpf.sources.conformance import parse

sys.path.insert(0, str(ROOT / "scripts"))
from run_conformance import object_file

PLUGIN = ROOT / "scripts" / "bpf_conformance_plugin"


def spell(data: bytes) -> str:
    """Bytes as the runner writes them: two digits and two spaces each."""
    return "".join(f"{byte:02x}  " for byte in data)


def start(program: bytes, memory: bytes, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = [spell(memory)] if memory else []
    return subprocess.run(
        [PLUGIN, *arguments, *options], input=spell(program) + "\n", capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.vectors
@pytest.mark.parametrize("engine", ["interp", "native"])
@pytest.mark.parametrize("name", ["add", "ldxdw", "mem-len", "call_local", "lddw", "callx", "stxw"])
def test_plugin_prints_the_result(name: str, engine: str) -> None:
    path: Path = vectors_dir() / "conformance" / f"{name}.data"
    test = parse(path.read_text(), str(path))
    done = start(encode(test.insns), test.memory or b"", "--engine", engine)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout, 16) == test.result


MOV_42_EXIT = bytes.fromhex("b70000002a0000009500000000000000")


@pytest.mark.vectors
@pytest.mark.parametrize("engine", ["interp", "native"])
@pytest.mark.parametrize("name", ["add", "call_local", "ldxdw"])
def test_the_runners_own_object_files(name: str, engine: str) -> None:
    path: Path = vectors_dir() / "conformance" / f"{name}.data"
    test = parse(path.read_text(), str(path))
    done = start(object_file(encode(test.insns)), test.memory or b"", "--engine", engine, "--elf")
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout, 16) == test.result


@pytest.mark.parametrize(("engine", "limit_s"), [("interp", 0.2), ("native", 0.3)])
def test_it_starts_fast(engine: str, limit_s: float, tmp_path: Path) -> None:
    """With nothing in the cache; processor time, as a busy machine makes everything late."""

    def once(number: int) -> float:
        env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / str(number))}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([PLUGIN, "--engine", engine], input=spell(MOV_42_EXIT), capture_output=True, text=True, env=env)
        assert done.stdout == "2a\n", done.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once(number) for number in range(5)) < limit_s


@pytest.mark.parametrize("engine", ["interp", "native"])
def test_it_imports_little(engine: str, tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-S", "-X", "importtime", str(ROOT / "scripts" / "bpf_conformance_plugin.py"), "--engine", engine]
    program = spell(object_file(MOV_42_EXIT))
    done = subprocess.run([*words, "--elf"], input=program, capture_output=True, text=True, env=env, check=True)
    assert done.stdout == "2a\n"
    unneeded = ["netbpf.abi.maps", "netbpf.maps.base", "netbpf.abi.helpers", "netbpf.isa.disasm", "netbpf.packet.receive"]
    unneeded += ["netbpf.btf", "netbpf.sources.elf.object"]
    if engine == "native":
        unneeded += ["netbpf.engine.interp", "netbpf.engine.llvm.loop", "netbpf.packet.skbuff", "netbpf.abi.context"]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & set(unneeded)


def test_options_may_come_without_memory() -> None:
    done = start(MOV_42_EXIT, b"", "--some-option")
    assert (done.returncode, done.stdout) == (0, "2a\n")


def test_an_object_is_its_text_section_or_its_one_program() -> None:
    for section in (".text", "socket"):
        elf = Builder()
        elf.symbol("main", elf.add(section, MOV_42_EXIT), 0, len(MOV_42_EXIT))
        done = start(elf.build(), b"", "--elf")
        assert (done.returncode, done.stdout) == (0, "2a\n"), done.stderr
    done = start(Builder().build(), b"", "--elf")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no program" in done.stderr


def test_an_engine_is_one_of_two() -> None:
    done = start(MOV_42_EXIT, b"", "--engine", "jit")
    assert (done.returncode, done.stderr) == (1, "--engine jit: interp or native\n")


def test_a_fault_is_told_on_stderr_with_the_instruction() -> None:
    done = start(bytes.fromhex("7110080000000000") + MOV_42_EXIT[8:], bytes(8))
    assert (done.returncode, done.stdout) == (1, "")
    assert "insn 0 ((71) r0 = *(u8 *)(r1 +8))" in done.stderr
    assert "offset 8 of the program's memory (8 bytes), 1 bytes past its end" in done.stderr


def test_what_is_no_program_is_refused() -> None:
    done = start(b"\x95", b"")
    assert (done.returncode, done.stdout) == (1, "")
    assert "8-byte" in done.stderr
