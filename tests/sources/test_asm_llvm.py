"""LLVM's own assembly text and listings of a compiled program, read back to the bytes of LLVM's object."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from netbpf.errors import SourceError
from netbpf.isa.instruction import Program, decode
from netbpf.sources.asm import parse
from netbpf.sources.elf.reader import ElfFile

binding = pytest.importorskip("llvmlite.binding", reason="LLVM is asked through llvmlite")

IR = """
declare i64 @llvm.bswap.i64(i64)
declare i32 @llvm.bswap.i32(i32)
declare i16 @llvm.bswap.i16(i16)

define i64 @entry(ptr %p, i64 %n) {
start:
  %buf = alloca [8 x i32], align 8
  %any = icmp eq i64 %n, 0
  br i1 %any, label %done, label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %i1, %next ]
  %s = phi i64 [ 5, %start ], [ %s9, %next ]
  %a = load i8, ptr %p
  %a64 = zext i8 %a to i64
  %p2 = getelementptr i8, ptr %p, i64 2
  %b = load i16, ptr %p2
  %b64 = sext i16 %b to i64
  %p4 = getelementptr i8, ptr %p, i64 4
  %c = load volatile i32, ptr %p4
  %c64 = sext i32 %c to i64
  %p8 = getelementptr i8, ptr %p, i64 8
  %d = load i64, ptr %p8
  %s1 = add i64 %s, %a64
  %s2 = xor i64 %s1, %b64
  %s3 = sub i64 %s2, %c64
  %sh = and i64 %i, 31
  %s4 = shl i64 %d, %sh
  %s5 = or i64 %s3, %s4
  %w = trunc i64 %s5 to i32
  %slot = and i64 %i, 7
  %at = getelementptr [8 x i32], ptr %buf, i64 0, i64 %slot
  store volatile i32 %w, ptr %at
  %neg = icmp slt i64 %s5, -5
  %s6 = lshr i64 %s5, 3
  %s7 = ashr i64 %s5, 4
  %s8 = select i1 %neg, i64 %s6, i64 %s7
  %w1 = mul i32 %w, 12345
  %w2 = udiv i32 %w1, 7
  %w3 = urem i32 %w1, 11
  %small = icmp ult i32 %w2, %w3
  %w4 = call i32 @llvm.bswap.i32(i32 %w3)
  %w64 = zext i32 %w4 to i64
  %s9 = select i1 %small, i64 %w64, i64 %s8
  %big = icmp ugt i64 %s9, 1099511627520
  br i1 %big, label %done, label %next
next:
  %i1 = add i64 %i, 1
  %more = icmp ne i64 %i1, %n
  br i1 %more, label %loop, label %done
done:
  %r = phi i64 [ 0, %start ], [ %s9, %loop ], [ %s9, %next ]
  %swapped = call i64 @llvm.bswap.i64(i64 %r)
  %half = trunc i64 %r to i16
  %half1 = call i16 @llvm.bswap.i16(i16 %half)
  store i16 %half1, ptr %p
  %q8 = getelementptr i8, ptr %p, i64 8
  store i64 %swapped, ptr %q8
  store volatile i8 1, ptr %p
  store volatile i32 7, ptr %p
  %old = atomicrmw add ptr %q8, i64 %r monotonic
  ret i64 %swapped
}
"""
FETCHING = """
define i64 @entry(ptr %p, i64 %n, i32 %m) {
  %a = atomicrmw add ptr %p, i64 %n seq_cst
  %b = atomicrmw or ptr %p, i64 %a seq_cst
  %c = atomicrmw xor ptr %p, i32 %m seq_cst
  %d = atomicrmw xchg ptr %p, i64 %b seq_cst
  %e = atomicrmw xchg ptr %p, i32 %c seq_cst
  %f = cmpxchg ptr %p, i64 %d, i64 %n seq_cst seq_cst
  %g = cmpxchg ptr %p, i32 %e, i32 %m seq_cst seq_cst
  %h = extractvalue { i64, i1 } %f, 0
  %i = extractvalue { i32, i1 } %g, 0
  %j = zext i32 %i to i64
  %k = add i64 %h, %j
  ret i64 %k
}
"""
SIGNED = """
define i64 @entry(ptr %p, i64 %n, i32 %m) {
  %a = sdiv i64 %n, 7
  %b = srem i64 %a, %n
  %c = sdiv i32 %m, %m
  %d = srem i32 %c, 5
  %e = load i8, ptr %p
  %f = sext i8 %e to i64
  %g = trunc i64 %b to i16
  %h = sext i16 %g to i32
  %i = add i32 %h, %d
  %j = sext i32 %i to i64
  %k = add i64 %j, %f
  ret i64 %k
}
"""
CASES = [(name, ir, cpu) for name, ir, cpus in (
    ("all", IR, ("v1", "v2", "v3", "v4")), ("fetching", FETCHING, ("v3", "v4")), ("signed", SIGNED, ("v4",)),
) for cpu in cpus]  # fmt: skip


def compiled(ir: str, cpu: str) -> tuple[str, bytes]:
    """LLVM's assembly text and object of ``ir`` for a BPF processor version."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple("bpf").create_target_machine(cpu=cpu, opt=2)
    return machine.emit_assembly(binding.parse_assembly(ir)), machine.emit_object(binding.parse_assembly(ir))


def text_section(data: bytes) -> Program:
    elf = ElfFile(data, "<llvm>")
    section = elf.section(".text")
    assert section is not None
    return decode(elf.content(section))


@pytest.mark.parametrize(("name", "ir", "cpu"), CASES, ids=[f"{name}-{cpu}" for name, _, cpu in CASES])
def test_assembly_text(name: str, ir: str, cpu: str) -> None:
    text, data = compiled(ir, cpu)
    assert parse(text).insns == text_section(data)


@pytest.mark.skipif(shutil.which("llvm-objdump") is None, reason="no llvm-objdump here")
@pytest.mark.parametrize("options", [[], ["--no-show-raw-insn"], ["--no-leading-addr"], ["-r"]], ids=" ".join)
def test_listings(options: list[str], tmp_path: Path) -> None:
    _, data = compiled(IR, "v2")
    path = tmp_path / "all.o"
    path.write_bytes(data)
    listing = subprocess.run(["llvm-objdump", "-d", *options, str(path)], capture_output=True, text=True, check=True).stdout
    assert parse(listing).insns == text_section(data)


def test_a_listing_with_relocations_is_refused_by_name() -> None:
    listing = "0000000000000000 <main>:\n       0:\t18 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00\tr1 = 0 ll\n"
    with pytest.raises(SourceError, match=r"needs 'counts' .R_BPF_64_64.*read the object itself"):
        parse(listing + "\t\t0000000000000000:  R_BPF_64_64\tcounts\n")
