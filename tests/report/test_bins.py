"""Counts over trace time: nothing is lost when steps are merged, and memory stays bounded."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf.report.bins import MAX_BINS, WIDTHS_NS, TimeBins

Packet = tuple[int, int, int, int]  # nanoseconds, bytes on the wire, bytes kept, end
lengths = st.integers(0, 9000)
packets = st.lists(st.tuples(st.integers(0, 2**64 - 1), lengths, lengths, st.integers(0, 2)), min_size=1)


def filled(rows: list[Packet], batch: int = 7) -> TimeBins:
    bins = TimeBins()
    for first in range(0, len(rows), batch):
        bins.add(*(list(column) for column in zip(*rows[first : first + batch], strict=True)))
    return bins


@settings(deadline=None, max_examples=60)
@given(packets)
def test_every_packet_is_in_one_step(rows: list[Packet]) -> None:
    found = filled(rows).result()
    assert 1 <= len(found) <= MAX_BINS
    assert [sum(column) for column in found.packets] == [sum(r[3] == end for r in rows) for end in range(3)]
    assert sum(found.wire_bytes) == sum(r[1] for r in rows)
    assert sum(found.kept_bytes) == sum(r[2] for r in rows)


@settings(deadline=None, max_examples=60)
@given(packets)
def test_a_step_has_the_packets_of_its_time(rows: list[Packet]) -> None:
    found, start = filled(rows).result(), rows[0][0]
    for i in range(len(found)):
        here = [r for r in rows if max(0, r[0] - start) // found.width_ns == i]
        assert sum(column[i] for column in found.packets) == len(here)


@settings(deadline=None, max_examples=60)
@given(packets)
def test_how_packets_are_batched_makes_no_difference(rows: list[Packet]) -> None:
    assert filled(rows, 1).result() == filled(rows, 1000).result()


def test_steps_are_fine_and_few() -> None:
    """A trace of any length has at least a fifth of the steps that there is room for, where its packets are that dense."""
    for width in WIDTHS_NS[3:]:
        span = width * MAX_BINS // 2
        found = filled([(i * span // 1000, 1, 0, 2) for i in range(1001)], 100).result()
        assert MAX_BINS // 10 <= len(found) <= MAX_BINS


def test_a_packet_before_the_first_counts_with_it() -> None:
    found = filled([(10**9, 60, 60, 0), (5, 60, 0, 2)]).result()
    assert found.packets[2][0] == 1
