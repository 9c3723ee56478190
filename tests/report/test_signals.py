"""A signal in a terminal: bars from zero, and a dot where nothing is known."""

from __future__ import annotations

from wattkeeper.report.signals import ROWS, course, errors_by_day, in_terminal


def plain(values, marks=None):
    """Return the lines without styles and without the scale on the left."""
    lines = in_terminal(values, "g/kWh", marks or [""] * len(values), ["green"] * len(values))
    return [line.plain[10:] for line in lines]


def test_bars_stand_on_zero():
    """Of 100 and 50 the second is half as high: ten rows and five."""
    lines = plain([100.0, 50.0])

    assert [line[0] for line in lines[:ROWS]] == ["█"] * 10
    assert [line[1] for line in lines[:ROWS]] == [" "] * 5 + ["█"] * 5


def test_what_is_missing_is_a_dot_and_not_a_zero():
    """The gap has a dot, the true zero nothing."""
    bottom = plain([100.0, None, 0.0])[ROWS - 1]

    assert bottom == "█· "


def test_below_zero_the_floor_is_the_least_value():
    """Prices of −50 and 50: the first has no bar, the second the whole height; the scale says −50."""
    lines = in_terminal([-50.0, 50.0], "EUR/kWh", ["", ""], ["green"] * 2)

    assert lines[ROWS - 1].plain.split() == ["-50", "█"]
    assert lines[0].plain.split() == ["50", "█"]


def test_the_scale_has_as_many_digits_as_the_largest_value_needs():
    """Prices from −0.00009747 to 0.12345 EUR/kWh: four digits of the larger, and as many places of the other."""
    lines = in_terminal([-9.747e-05, 0.12345], "EUR/kWh", ["", ""], ["green"] * 2)

    assert [lines[row].plain[:9].strip() for row in (0, ROWS - 1)] == ["0.1235", "-0.0001"]
    assert {len(line.plain) for line in lines[:ROWS]} == {12}


def test_labels_that_would_meet_are_left_out():
    """The second label stands two columns on: there is no room for it."""
    assert plain([1.0] * 12, ["10-01", "", "10-02", "", "", "", "10-03", *[""] * 5])[ROWS].strip() == "10-01 10-03"


def test_the_line_breaks_at_a_gap_and_the_gap_is_shaded():
    """A null in the line, and a rectangle from the gap's start to its end."""
    points = [
        {"time": f"2026-10-01T0{h}:00:00Z", "value": v, "what": "measured"} for h, v in enumerate((1.0, None, 2.0))
    ]
    gaps = [{"start": "2026-10-01T01:00:00Z", "end": "2026-10-01T02:00:00Z"}]
    spec = course(points, gaps, "g/kWh", "intensity:DE")
    marks = [layer["mark"]["type"] for layer in spec["layer"]]

    assert marks == ["rect", "line"]
    assert spec["layer"][1]["mark"]["invalid"] == "break-paths-show-domains"
    assert spec["layer"][0]["data"]["values"] == gaps


def test_errors_by_day_have_a_bar_for_each_model():
    """Models stand in the order given, persistence first."""
    rows = [{"model": m, "hours": "1-24", "error": 1.0} for m in ("persistence", "ridge")]
    spec = errors_by_day(rows, "MAPE [%]", "x")

    assert spec["encoding"]["color"]["scale"]["domain"] == ["persistence", "ridge"]
    assert spec["encoding"]["y"]["title"] == "MAPE [%]"
