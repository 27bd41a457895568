"""The cases of tests/data/verifier: our answers, and the running kernel's, are the file's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.kernel import needs_kernel
from support.rules import DATA, PRIVILEGES, Case, all_cases, answer, kernel_code, our_answer, read_cases, real_maps, rewrite

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))


@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_our_answer(case: Case) -> None:
    for privilege in PRIVILEGES:
        assert our_answer(case, privilege) == case.answers[privilege], f"{case.path}:{case.line} ({privilege})"


@pytest.mark.parametrize("path", sorted(DATA.glob("*.rules")), ids=lambda path: path.stem)
class TestKernel:
    pytestmark = needs_kernel

    def test_kernel_answers(self, path: Path) -> None:
        from kernel_oracle import Oracle

        cases = list(read_cases(path))
        codes = [kernel_code(case, real_maps(case)) for case in cases]
        said: dict[int, dict[str, str]] = {}
        with Oracle(tuple(PRIVILEGES)) as oracle:
            for case, code in zip(cases, codes, strict=True):
                flags = case.spec.prog_flags
                said[case.line] = {name: answer(*oracle.ask(name, code, flags=flags)) for name in PRIVILEGES}
        if os.environ.get("NETBPF_UPDATE"):
            rewrite(path, said)
            return
        differing = [f"{case}: {said[case.line]}" for case in cases if said[case.line] != case.answers]
        assert not differing, "\n".join(differing)
