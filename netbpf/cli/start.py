"""Where the command begins: a replay that was run before starts at once, everything else by way of ``main``."""

from __future__ import annotations

import sys


def main() -> int:
    """The command line; the exit code. May end the process itself, for there is nothing left to tidy up."""
    words = sys.argv[1:]
    if words[:1] == ["replay"] and sys.platform == "linux":
        import os

        from netbpf.replay.quick import run

        code = run(words)
        if code is not None:
            os._exit(code)
    from netbpf.cli.main import main as ordinary

    return ordinary()
