"""The native engine: loads verified programs as native code."""

from __future__ import annotations

from netbpf.engine.llvm.effort import THOROUGH
from netbpf.engine.llvm.windows import NativeLoaded
from netbpf.env import Env
from netbpf.program import VerifiedProgram


class NativeEngine:
    """Compiles through LLVM. ``use_cache`` False neither reads nor writes the cache on disk; ``checked`` keeps every run-time
    check, so that a proof gone wrong ends in an EngineFault; ``effort``: of optimising (``effort``)."""

    name = "native"

    def __init__(self, *, use_cache: bool = True, checked: bool = False, effort: int = THOROUGH) -> None:
        self.use_cache, self.checked, self.effort = use_cache, checked, effort

    def load(self, program: VerifiedProgram, env: Env, *, view: str = "packet_raw") -> NativeLoaded:
        """Raises UnsupportedProgram for a program type without code here."""
        return NativeLoaded(program, env, use_cache=self.use_cache, checked=self.checked, view=view, effort=self.effort)
