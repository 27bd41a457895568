"""Every command that README and docs show is run, in a copy of what it needs; where output is shown, it is compared.

The commands of a document are run in its order in one folder, so that they may build on each other. See support.documents for
what counts as a command. Times that documents leave to the reader are cut: ``--seconds N`` and ``--duration N`` become 1. What
needs root runs in a network namespace of its own, with a device eth0.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from support.documents import Block, Command, blocks, commands, is_shown
from support.kernel import KERNEL_REASON

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "scenarios").glob("*.md")])
NEEDED = ("README.md", "docs", "pcaps", "scenarios", "scripts", "tests/data/objects", "tests/support", "pyproject.toml", "netbpf")
TIMEOUT_S = 120
IS_INSTALLED = any(e.value == "netbpf.pytest_plugin" for e in entry_points(group="pytest11"))
DEVICES = "ip link add eth0 type veth peer name far0 && for d in lo eth0 far0; do ip link set $d up; done || exit 99"

# names that documents give to files of the reader's own, and what stands for them
STAND_INS = {
    "trace.pcap": "pcaps/session.pcap",
    "capture.pcap": "pcaps/session.pcap",
    "large.pcap": "pcaps/session.pcap",
    "p.s": "scenarios/counting.s",
    "flows.o": "tests/data/objects/flow_tail_calls.o",
}
# commands that are shown and not run here, with the reason
NOT_RUN = {
    r"scripts/demo\b": "makes a virtual environment from a package index: see .ci/run",
    r"scripts/test\b": "runs this test",
    r"(python -m )?pip ": "asks a package index",
    r"git clone": "asks the network",
    r"clang ": "tests/data/objects/build.sh does it",
    r"python -m benchmarks\b": "measures for minutes",
}


def shown(document: Path) -> list[Command | Block]:
    """The commands of a document, and the files that it has the reader write, in order."""
    found: list[Command | Block] = []
    for block in blocks(document.read_text("utf-8")):
        found += [block] if block.file else list(commands(block))
    return found


def python_blocks(document: Path) -> list[Block]:
    """Blocks of Python that use the package and stand by themselves."""
    found = [b for b in blocks(document.read_text("utf-8")) if b.language in ("", "python")]
    return [b for b in found if re.search(r"^(from|import) netbpf\b", b.text, re.M) and not has_prompt(b) and not b.file]


def has_prompt(block: Block) -> bool:
    return any(line.startswith(("$ ", ">>> ")) for line in block.lines)


def reason_not_to_run(command: Command) -> str:
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, command.text)), "")


@pytest.fixture(scope="module")
def shims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs that documents call, of this interpreter."""
    folder = tmp_path_factory.mktemp("bin")
    pytest_words = f"-m pytest -p no:cacheprovider {'' if IS_INSTALLED else '-p netbpf.pytest_plugin'}"
    for name, module in (("netbpf", "-m netbpf"), ("pytest", pytest_words), ("python", ""), ("python3", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what commands need; the package itself is a link."""
    for name in NEEDED:
        source, target = ROOT / name, tmp_path / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == "netbpf":
            target.symlink_to(source)
        elif source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    for name, stands_for in STAND_INS.items():
        shutil.copy(ROOT / stands_for, tmp_path / "tree" / name)
    return tmp_path / "tree"


def run(words: list[str], tree: Path, shims: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {
        "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(cache),
        "COLUMNS": "80",
        "PYTEST_ADDOPTS": "",
    }
    return subprocess.run(
        words, cwd=tree, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


def run_all(steps: list[Command | Block], document: Path, tree: Path, shims: Path, cache: Path) -> None:
    for step in steps:
        if isinstance(step, Block):
            (tree / step.file).parent.mkdir(parents=True, exist_ok=True)
            (tree / step.file).write_text(step.text)
        else:
            check(step, document, tree, shims, cache)


def check(command: Command, document: Path, tree: Path, shims: Path, cache: Path) -> None:
    text = re.sub(r"--(seconds|duration) \d+", r"--\1 1", command.text)
    words = ["unshare", "--net", "bash", "-c", f"{DEVICES}\n{text}"] if command.needs_root else ["bash", "-c", text]
    done = run(words, tree, shims, cache)
    where = f"{document.relative_to(ROOT)}:{command.line}: {command.text}"
    assert done.returncode == command.exit_code, f"{where}\nexit code {done.returncode}\n{done.stdout}"
    if command.output and any(line.strip() for line in command.output):
        assert is_shown(command.output, done.stdout), f"{where}\nsaid:\n{done.stdout}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_shown_works(document: Path, tree: Path, shims: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    todo = [s for s in shown(document) if isinstance(s, Block) or not (s.needs_root or reason_not_to_run(s))]
    if not todo and not python_blocks(document):
        pytest.skip("shows no command")
    run_all(todo, document, tree, shims, tmp_path_factory.getbasetemp() / "cache-of-documents")


@pytest.mark.kernel
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_needs_root_works(document: Path, tree: Path, shims: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    steps = shown(document)
    if not any(isinstance(s, Command) and s.needs_root for s in steps):
        pytest.skip("shows no command for root")
    if KERNEL_REASON:
        pytest.skip(KERNEL_REASON)
    todo = [s for s in steps if isinstance(s, Block) or (s.needs_root and not reason_not_to_run(s))]
    run_all(todo, document, tree, shims, tmp_path_factory.getbasetemp() / "cache-of-documents")


def python_examples() -> list[tuple[Path, Block]]:
    return [(document, block) for document in DOCUMENTS for block in python_blocks(document)]


@pytest.mark.parametrize(
    ("document", "block"), python_examples(), ids=[f"{d.relative_to(ROOT)}:{b.line}" for d, b in python_examples()]
)
def test_python_that_is_shown_works(document: Path, block: Block, tree: Path, shims: Path, tmp_path: Path) -> None:
    text = block.text
    if "eth0" in text or "as root" in text:
        pytest.skip("waits for packets of a real device; tests/host has the same on devices of its own")
    (tmp_path / "example.py").write_text(text)
    done = run([sys.executable, str(tmp_path / "example.py")], tree, shims, tmp_path / "cache")
    assert done.returncode == 0, f"{document.relative_to(ROOT)}:{block.line}\n{done.stdout}"


def test_links_lead_somewhere() -> None:
    """Every relative link of every document, and its heading where it names one."""
    broken = []
    for document in [*DOCUMENTS, ROOT / "pcaps" / "README.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
            path, _, anchor = target.partition("#")
            if "://" in target:
                continue
            there = document.parent / path if path else document
            if not there.exists() or (anchor and anchor not in _anchors(there)):
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []


def _anchors(document: Path) -> set[str]:
    """Headings as links name them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_document_is_in_the_index() -> None:
    """README leads to every document."""
    told = (ROOT / "README.md").read_text("utf-8")
    assert [d.name for d in (ROOT / "docs").glob("*.md") if f"docs/{d.name}" not in told] == []
