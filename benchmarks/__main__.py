"""Every measurement that the documentation's figures come from, in one run; each line is a ratio.

    python -m benchmarks [--traces DIR] [--rounds 3] [--ubpf FOLDER] [--list] [NAME ...]

Traces that DIR lacks are written there first (3 GB; by default a folder in the system's temporary one, which stays). About ten
minutes on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = {
    "native": "the native engine beside a walk of memory, libpcap, tcpdump and the kernel's JIT; streams, memory, cores",
    "jit": "the native engine beside other user-space JITs: uBPF where --ubpf says it is built, DPDK's where it is installed",
    "known": "a filter and a counter of flows beside C loops that are told where every record and every flow is",
    "reading": "captures read in Python beside scapy",
    "interp": "the interpreter",
    "verifier": "the verifier's walk beside the kernel's",
}
ON_TRACES = frozenset({"native", "jit", "known"})


def command(name: str, traces: Path, rounds: int, ubpf: Path | None) -> list[str]:
    words = ["--traces", str(traces), "--rounds", str(rounds)] if name in ON_TRACES else []
    words += ["--ubpf", str(ubpf)] if name == "jit" and ubpf else []
    return [sys.executable, "-m", f"benchmarks.{name}", *words]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--traces", type=Path, default=Path(tempfile.gettempdir()) / "netbpf-traces")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--ubpf", type=Path, metavar="FOLDER", help="where uBPF is built: see benchmarks.jit")
    p.add_argument("--list", action="store_true", help="say what there is")
    p.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all by default")
    a = p.parse_args()
    if a.list:
        print("\n".join(f"{name:10}{what}" for name, what in NAMES.items()))
        return 0
    unknown = set(a.names) - set(NAMES)
    if unknown:
        p.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    names = a.names or list(NAMES)
    if ON_TRACES & set(names) and not (a.traces / "mixed-100k.pcap").exists():
        subprocess.run([sys.executable, "-m", "benchmarks.traces", str(a.traces)], cwd=ROOT, check=True)
    failed = 0
    for name in names:
        print(f"== {name}: {NAMES[name]}", flush=True)
        failed |= subprocess.run(command(name, a.traces, a.rounds, a.ubpf), cwd=ROOT, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
