"""Trace output read from the running kernel: mounted or not, and nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.kernel import needs_kernel

from netbpf.host.linux import trace

pytestmark = needs_kernel


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_without_a_mount_nobody_sees_the_one_that_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MOUNTS", ())
    mounts, before = Path("/proc/self/mountinfo").read_text(), descriptors()
    with trace.TraceInstance() as instance:
        assert instance.read() == []
        assert Path("/proc/self/mountinfo").read_text() == mounts
        folder = instance._folder
        assert folder.is_dir()
    assert not folder.is_dir()
    assert descriptors() == before
