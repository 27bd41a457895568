"""The proof of a translated classic filter.

The kernel proves none: what bpf_check_classic demands is enough for it. Here the translation is proved as any program is,
for the facts that engines build on; it may call what ``abi.classic_helpers`` lists. Knows no source of filters.
"""

from __future__ import annotations

from netbpf.errors import ProgramRejected
from netbpf.program import ProgramSpec, VerifiedProgram
from netbpf.verifier.check import verify
from netbpf.verifier.env import LoadRequest, VerifierResult


def verify_classic(spec: ProgramSpec, *, log_level: int = 0) -> VerifierResult:
    """Decide about the translation in ``spec``; it has no maps."""
    return verify(LoadRequest(spec.insns, name=spec.name, log_level=log_level, classic=True))


def prove_classic(spec: ProgramSpec) -> VerifiedProgram:
    """The proved translation. Raises ProgramRejected."""
    result = verify_classic(spec)
    if result.program is None:
        log = verify_classic(spec, log_level=1).log
        raise ProgramRejected(result.errno, log, result.diagnosis)
    return result.program
