"""scripts/scenario_mutations.py on a sample: what is changed about a shipped scenario is noticed. The score is the script's."""

from __future__ import annotations

import random
from pathlib import Path

import scenario_mutations as sm

FILES = 5
MUTANTS = 12


def test_a_sample() -> None:
    rng, total = random.Random(20), sm.Score()
    for path in rng.sample(sm.scenario_files(), FILES):
        mutants = sm.mutants_of(path)
        for score in sm.score_of(path.name, rng.sample(mutants, min(MUTANTS, len(mutants)))).values():
            total.add(score)
    assert total.counted >= FILES
    assert total.share >= sm.ENOUGH, "\n".join(total.survivors)


def test_a_scenario_that_expects_too_little_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "weak.scenario.toml"
    program = "r6 = r1\\nr0 = *(u8 *)skb[23]\\nif r0 != 6 goto drop\\nr0 = -1\\nexit\\ndrop: r0 = 0\\nexit"
    packet = "[[packet]]\nscapy = 'Ether()/IP()/TCP()'\nexpect = 'accept'\n"
    path.write_text(f'netbpf = 1\n[program]\nasm = "{program}"\n{packet}')
    scores = sm.score_of("weak", sm.mutants_of(path))
    assert any("another verdict" in line for line in scores["program"].survivors)
    assert scores["program"].share < sm.ENOUGH
