"""A program over a capture, and all that is left behind."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from netbpf.engine.results import Totals, Verdicts
from netbpf.env import SteppedEnv
from netbpf.packet.capture import Window
from netbpf.packet.open import open_capture
from netbpf.replay.core import Replay
from support.programs_of import loaded_program


def replayed(engine: Any, text: str, capture: bytes | Path) -> tuple[Any, ...]:
    """Totals, intervals, map bytes and the clock after a replay of an assembly program."""
    program, env = loaded_program(text), SteppedEnv()
    replay = Replay(engine.load(program, env), {m.spec.name: m for m in program.maps})
    with open_capture(capture if isinstance(capture, Path) else io.BytesIO(capture)) as reader:
        intervals = list(replay.run(reader))
    return replay.totals, intervals, [bytes(m.memory) for m in program.maps], env.now_ns


def walk_windows(loaded: Any, capture: bytes, totals: Totals, verdicts: Verdicts | None = None) -> None:
    """Every window of a capture through a loaded program."""
    with open_capture(io.BytesIO(capture)) as reader:
        for piece in reader.windows():
            assert isinstance(piece, Window)
            loaded.walk(piece, totals, verdicts=verdicts)
            if piece.start == piece.end:
                break
