"""What bounds a run in both engines: calls in calls, and tail calls (include/linux/bpf.h, bpf_verifier.h)."""

from __future__ import annotations

from typing import Final

MAX_CALL_FRAMES: Final = 8  # of one program
MAX_TAIL_CALL_CNT: Final = 33
MORE_FRAMES: Final = MAX_CALL_FRAMES - 1  # what a tail call may add: the other program goes on in the frame that made it
MAX_FRAMES: Final = MAX_CALL_FRAMES + MAX_TAIL_CALL_CNT * MORE_FRAMES
