"""Axes: round ticks that cover what is drawn, units that fit."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf.report.ticks import duration, si, ticks, time_ticks


@settings(deadline=None)
@given(st.floats(1e-3, 1e15), st.booleans())
def test_ticks_cover_the_values_and_are_few(top: float, whole: bool) -> None:
    found = ticks(top, whole=whole)
    assert found[0] == 0
    assert found[-1] >= top * (1 - 1e-9)
    assert 2 <= len(found) <= 6
    assert not whole or all(t == int(t) for t in found)


@settings(deadline=None)
@given(st.floats(1e-9, 1e9), st.integers(3, 10))
def test_time_ticks_lie_within_the_span(span: float, most: int) -> None:
    _, found = time_ticks(span, most)
    assert found[0] == 0
    assert found[-1] <= span * (1 + 1e-9)
    assert len(found) <= most + 1
    assert all(a < b for a, b in pairwise(found))


DURATIONS = {0: "0 s", 0.02: "20 ms", 9.433: "9.433 s", 90: "1.5 min", 7200: "2 h", 86400: "1 day", 864e3: "10 days"}


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_durations_are_told_in_a_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.25, "0.25"), (3200, "3,200"), (219229, "219 k"), (2.5e6, "2.5 M")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert si(value) == text
