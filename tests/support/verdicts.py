"""Assembly in, the verifier's answer out."""

from __future__ import annotations

from typing import Any

from netbpf.maps.spec import MapSpec
from netbpf.sources.asm import parse
from netbpf.verifier.check import verify
from netbpf.verifier.env import LoadRequest, MapInfo, Privileges, VerifierResult

PRIVILEGES = {
    "priv": Privileges(),
    "capbpf": Privileges.from_caps(True, False),
    "unpriv": Privileges.from_caps(False, False),
}
ARRAY = MapSpec(2, 4, 48, 2, name="array")
HASH = MapSpec(1, 8, 16, 4, name="hash")


def judge(text: str, *specs: MapSpec, mode: str = "priv", level: int = 1, **fields: Any) -> VerifierResult:
    """Verify assembly; the n-th map it names (`map[a]`) is described by the n-th of ``specs``."""
    maps = tuple(MapInfo(spec, address=0xFFFF_8881_0000_0000 + (i << 12)) for i, spec in enumerate(specs))
    insns = fields.pop("insns", None) or parse(text).insns
    return verify(LoadRequest(insns, log_level=level, privileges=PRIVILEGES[mode], fd_array_maps=maps, **fields))


def reason(result: VerifierResult) -> str:
    """The last line of the log that is not statistics; "" for an accepted program."""
    if not result.errno:
        return ""
    assert result.diagnosis is not None
    return str(result.diagnosis["message"])
