"""Files of verifier cases: a program in assembly, and what the kernel said to it under each privilege.

    == name of the case
    r0 = *(u64 *)(r10 - 8)
    exit
    -- priv: accept
    -- capbpf: EACCES invalid read from stack R10 off=-8 size=8
    -- unpriv: EACCES invalid read from stack R10 off=-8 size=8

With NETBPF_UPDATE=1 the kernel test rewrites the answers of its file.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netbpf.abi.maps import MapType
from netbpf.errors import errno_name
from netbpf.isa.instruction import encode
from netbpf.program import MapDecl, ProgramSpec
from netbpf.sources.asm import parse
from netbpf.verifier.check import verify
from netbpf.verifier.env import LoadRequest, MapInfo, Privileges

DATA = Path(__file__).resolve().parents[1] / "data" / "verifier"
PRIVILEGES = {
    "priv": Privileges.from_caps(True, True),
    "capbpf": Privileges.from_caps(True, False),
    "unpriv": Privileges.from_caps(False, False),
}
_NOISE = re.compile(r"processed \d+ insns|\(\d|verification time|stack depth|\s*\Z")
_ADDRESS = re.compile(r"0xffff[0-9a-f]{12}")


@dataclass
class Case:
    """One case; ``line`` is where it begins in ``path``. ``answers``: privilege -> ``accept`` or ``ERRNO reason``."""

    name: str
    path: Path
    line: int
    text: str = ""
    answers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line} {self.name}"

    @property
    def spec(self) -> ProgramSpec:
        return parse(self.text, str(self.path))


def read_cases(path: Path) -> Iterator[Case]:
    """The cases of a file, in order."""
    case: Case | None = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("== "):
            if case is not None:
                yield case
            case = Case(line[3:], path, number)
        elif line.startswith("-- "):
            assert case is not None
            privilege, _, answer = line[3:].partition(": ")
            case.answers[privilege] = answer
        elif case is not None:
            case.text += line + "\n"
    if case is not None:
        yield case


def all_cases() -> list[Case]:
    return [case for path in sorted(DATA.glob("*.rules")) for case in read_cases(path)]


def answer(error: int, log: str) -> str:
    """What a load said, in a case's words: the errno and the last line that is not statistics."""
    if not error:
        return "accept"
    lines = [line for line in log.splitlines() if not _NOISE.match(line)]
    return f"{errno_name(error)} {_ADDRESS.sub('ADDR', lines[-1]) if lines else ''}".rstrip()


def _map_info(decl: MapDecl) -> MapInfo:
    spec = decl.spec
    values = {int.from_bytes(key, "little"): value for key, value in decl.contents}
    area = b"".join(values.get(i, b"").ljust(spec.value_size, b"\0") for i in range(spec.max_entries))
    contents = area if decl.frozen else None
    inner = MapInfo(spec.inner) if spec.inner else None
    return MapInfo(spec, frozen=decl.frozen, contents=contents, inner=inner, bypass_spec_v1=True)  # root made the kernel's maps


def our_answer(case: Case, privilege: str) -> str:
    spec = case.spec
    request = LoadRequest(
        spec.insns,
        license_gpl=spec.license == "GPL",
        prog_flags=spec.prog_flags,
        log_level=2,
        privileges=PRIVILEGES[privilege],
        fd_array_maps=tuple(_map_info(decl) for decl in spec.maps),
    )
    result = verify(request)
    return answer(result.errno, result.log)


def _record(decl: MapDecl) -> dict[str, Any]:
    spec = decl.spec
    record: dict[str, Any] = {
        "key_size": spec.key_size,
        "value_size": spec.value_size,
        "max_entries": spec.max_entries,
        "map_flags": spec.map_flags,
        "contents": {key.hex(): value.hex() for key, value in decl.contents},
    }
    return record | ({"internal": ".rodata"} if decl.frozen else {})


def real_maps(case: Case) -> list[int]:
    """Descriptors of real maps for the case's declarations."""
    from kernel_oracle import create_map

    fds = []
    for decl in case.spec.maps:
        inner = 0
        if decl.spec.inner is not None:
            inner = create_map(_record(MapDecl(decl.spec.inner)), int(MapType(decl.spec.inner.map_type)))
        fd = create_map(_record(decl), int(decl.spec.map_type), decl.spec.name, inner)
        assert fd > 0, (case, errno.errorcode.get(-fd, fd))
        fds.append(fd)
    return fds


def kernel_code(case: Case, fds: list[int]) -> bytes:
    """The case's instructions with real descriptors (map references by index become references by descriptor)."""
    insns = list(case.spec.insns)
    for i, insn in enumerate(insns):
        if insn.code == 0x18 and insn.src in (5, 6):
            insns[i] = insn._replace(src=1 if insn.src == 5 else 2, imm=fds[insn.imm])
    return encode(insns)


def rewrite(path: Path, answers: dict[int, dict[str, str]]) -> None:
    """Put new answers (by the line of a case) into a file."""
    out: list[str] = []
    for case in read_cases(path):
        out += [f"== {case.name}", case.text.rstrip("\n")]
        out += [f"-- {privilege}: {text}" for privilege, text in answers[case.line].items()]
        out.append("")
    path.write_text("\n".join(out))
