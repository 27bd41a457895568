"""Programs that were proved before, kept on disk: a session starts from them without text, host or proof.

An entry is what the verifier handed to the engines and how its maps began, under the digest of the program's text, of the
options, and of this package's own sources. Clang objects are never kept: what they become depends on the machine's BTF.
"""

from __future__ import annotations

import marshal
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from netbpf import __version__
from netbpf.engine.llvm import cache
from netbpf.engine.llvm.digest import sha256
from netbpf.isa.classic import ClassicProgram, encode_classic
from netbpf.isa.instruction import decode, encode
from netbpf.maps.spec import MapSpec
from netbpf.program import InsnFacts, MapDecl, ProgramSpec, Subprog, VerifiedProgram

if TYPE_CHECKING:
    from netbpf.maps.storage import MapBase

ELF_MAGIC: Final = b"\x7fELF"
MAX_BYTES: Final = 1 << 20
ROOMS: Final = ("abi", "host", "host/sim", "isa", "maps", "sources", "verifier", "")


class Remembered(NamedTuple):
    """A proved program and its maps, made anew, by name."""

    program: VerifiedProgram
    maps: dict[str, MapBase]


def key_of(path: str, options: object) -> str:
    """The key of a program file; "" for one that is not kept."""
    if path == "-" or not os.path.isfile(path) or os.path.getsize(path) > MAX_BYTES:
        return ""
    with open(path, "rb") as f:
        data = f.read()
    if data.startswith(ELF_MAGIC):
        return ""
    told = (data, os.path.basename(path), repr(options), __version__, _sources())
    return "prog-" + sha256(repr(told).encode()).hexdigest()


def key_of_filter(insns: ClassicProgram, view: str) -> str:
    """The key of a classic filter that was compiled for a view."""
    return "filter-" + sha256(repr((encode_classic(insns), view, __version__, _sources())).encode()).hexdigest()


def _sources() -> list[tuple[str, int, int]]:
    """What tells one version of the rooms behind a proof from another."""
    root, found = os.path.dirname(os.path.dirname(__file__)), []
    for room in ROOMS:
        with os.scandir(os.path.join(root, room)) as files:
            found += [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.name.endswith(".py")]
    return sorted(found)


def recall(key: str) -> Remembered | None:
    """The program under ``key``; None where there is none that may be used."""
    data = cache.read_bytes(key) if key else None
    if data is None:
        return None
    head, insns, subprogs, facts, source_lines, maps = marshal.loads(data)
    live = {row[0][5]: _make(row) for row in maps}
    prog_type, license_gpl, name, prog_id = head
    program = VerifiedProgram(
        decode(insns), prog_type, tuple(live[n] for n in (row[0][5] for row in maps)), tuple(Subprog(*s) for s in subprogs),
        tuple(InsnFacts(*f) for f in facts), license_gpl, name, prog_id, True, source_lines,
    )  # fmt: skip
    return Remembered(program, live)


def _make(row: tuple[Any, ...]) -> MapBase:
    from netbpf.maps.create import create

    spec, map_id, n_cpus, contents, frozen = row
    live = create(MapSpec(*spec), map_id=map_id, n_cpus=n_cpus)
    for key, value in contents:
        live.update_user(key, value)
    if frozen:
        live.freeze()
    return live


def remember(key: str, spec: ProgramSpec, program: VerifiedProgram, maps: dict[str, MapBase]) -> None:
    """Keep a program that was just proved, if its maps are plain: declared by the text, each by its name, without inner maps."""
    names = [decl.spec.name for decl in spec.maps]
    by_name = {m.spec.name: m for m in program.maps}
    if not key or len(set(names)) != len(names) or list(by_name) != names[: len(by_name)] or set(by_name) != set(names):
        return
    if any(decl.spec.inner is not None or maps[decl.spec.name].spec != decl.spec for decl in spec.maps):
        return
    head = (program.prog_type, program.license_gpl, program.name, program.prog_id)
    subprogs: tuple[Any, ...] = tuple(tuple(s) for s in program.subprogs)  # marshal knows plain tuples alone
    facts: tuple[Any, ...] = tuple(tuple(f) for f in program.facts)
    rows = tuple(_row(decl, maps[decl.spec.name]) for decl in spec.maps)
    cache.write_bytes(key, marshal.dumps((head, encode(program.insns), subprogs, facts, program.source_lines, rows)))


def _row(decl: MapDecl, live: MapBase) -> tuple[Any, ...]:
    spec = (*decl.spec[:8], None, decl.spec.btf_key_type_id, decl.spec.btf_value_type_id)
    return spec, live.map_id, live.n_cpus, decl.contents, decl.frozen
