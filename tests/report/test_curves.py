"""Map entries over trace time: bounded, thinned evenly, the end always there."""

from __future__ import annotations

from netbpf.abi.maps import MapType
from netbpf.engine.results import Totals
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec
from netbpf.replay.core import Interval
from netbpf.report.curves import MAX_CURVES, MAX_POINTS, EntryCurves

LIVE = create(MapSpec(MapType.HASH, 4, 8, 512, name="m"), map_id=1, n_cpus=1)


def entry(key: int, n: int) -> tuple[bytes, bytes]:
    return key.to_bytes(4, "little"), n.to_bytes(8, "little")


def interval(i: int, rows: list[tuple[bytes, bytes]] | None) -> Interval:
    return Interval(float(i), 1.0, Totals(), maps={"m": rows})


def test_a_week_of_seconds_is_some_hundred_points() -> None:
    curves = EntryCurves("m", LIVE, None)
    seconds = 7 * 86400
    for i in range(seconds):
        curves.add(interval(i, [entry(7, i)]))
    found = curves.result()
    assert found is not None
    assert MAX_POINTS // 2 <= len(found.times_s) <= MAX_POINTS + 1
    assert found.times_s[-1] == seconds
    assert found.curves[0].values[-1] == seconds - 1
    assert found.curves[0].values == [round(t) - 1 for t in found.times_s]


def test_the_largest_that_changed_are_drawn() -> None:
    curves = EntryCurves("m", LIVE, None)
    for i in range(3):
        curves.add(interval(i, [entry(1000, 99), *(entry(200 + k, i * k) for k in range(10))]))
    found = curves.result()
    assert found is not None
    assert [c.label for c in found.curves] == ["209", "208", "207", "206", "205", "204"][:MAX_CURVES]
    assert found.left_out == 3, "203, 202, 201; 200 stays 0 and 1000 stays 99"


def test_an_entry_that_comes_later_has_no_number_before() -> None:
    curves = EntryCurves("m", LIVE, None)
    curves.add(interval(0, []))
    curves.add(interval(1, [entry(300, 5)]))
    found = curves.result()
    assert found is not None
    assert found.curves[0].values == [None, 5]


def test_a_map_of_too_many_entries_has_no_curves() -> None:
    curves = EntryCurves("m", LIVE, None)
    curves.add(interval(0, [entry(300, 5)]))
    curves.add(interval(1, None))
    curves.add(interval(2, [entry(300, 9)]))
    assert curves.result() is None
