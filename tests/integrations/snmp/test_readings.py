"""Raw numbers to readings: scales, decimals, what means that there is none."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core.live import Discovery
from wattkeeper.integrations.snmp.link import Config
from wattkeeper.integrations.snmp.meter import SnmpDevice
from wattkeeper.integrations.snmp.profile import Profile
from wattkeeper.integrations.snmp.readings import number, read

COUNTER, POWER, DECIMALS, THERE = (f"1.3.6.1.4.1.99999.{n}" for n in (1, 2, 3, 4))
UNITS_MJ = {"Wh": 3_600_000, "kWh": 3_600_000_000, "J": 1000, "MWh": 3_600_000_000_000}
UNITS_MW = {"W": 1000, "kW": 1_000_000, "mW": 1}


def profile_of(*values):
    group = {"level": "inlet", "label": "{1}", "whole": 1, "value": list(values)}
    table = {"title": "t", "match": ["1.3.6.1.4.1.99999"], "probe": POWER, "group": [group], "name": "t"}
    return Profile.model_validate(table)


def samples_of(profile, told):
    """What the device would pass on, by quantity."""
    device = SnmpDevice(Config(host="p", asset="r"), "r")
    points = device._whole(read(profile, told), Discovery())
    return {point.meter.quantity: value for point in points if (value := point.read(told)) is not None}


COUNTS = st.integers(0, 2**32 - 2).filter(lambda n: n != 2**31 - 1)


@given(COUNTS, st.integers(-3, 3), st.sampled_from(sorted(UNITS_MJ)), st.integers(0, 3))
def test_energy_is_exact_for_every_scale(raw, exponent, unit, decimals):
    """raw × 10^exponent / 10^decimals units, in whole millijoules: exact in decimals, rounded once."""
    value = {"quantity": "energy_counter", "oid": f"{COUNTER}.*", "unit": unit, "scale": Decimal(10) ** exponent}
    profile = profile_of({**value, "decimals": f"{DECIMALS}.{{1}}"})
    told = {f"{COUNTER}.1": raw, f"{DECIMALS}.1": decimals}
    exact = Fraction(raw) * Fraction(10) ** exponent / 10**decimals * UNITS_MJ[unit]

    (reading,) = read(profile, told)
    assert Fraction(reading.value) * UNITS_MJ[unit] == exact
    got = samples_of(profile, told)
    assert got == ({"energy_counter": round(exact)} if exact < 2**62 else {})


@given(
    st.integers(-(2**31) + 1, 2**31 - 2),
    st.sampled_from(sorted(UNITS_MW)),
    st.sampled_from(["1", "10", "0.1", "0.001"]),
)
def test_power_is_exact_and_never_below_zero(raw, unit, scale):
    """A negative number is no reading of a load; 0 W is one."""
    profile = profile_of({"quantity": "power", "oid": f"{POWER}.*", "unit": unit, "scale": Decimal(scale)})
    exact = Fraction(raw) * Fraction(scale) * UNITS_MW[unit]

    assert samples_of(profile, {f"{POWER}.7": raw}) == ({"power": round(exact)} if raw >= 0 else {})


@given(st.integers(0, 2**63), st.sets(st.integers(0, 2**63), max_size=3))
def test_numbers_that_mean_none_are_none(raw, absent):
    """As many as a profile lists."""
    value = {"quantity": "energy_counter", "oid": f"{COUNTER}.*", "unit": "J", "absent": sorted(absent)}

    assert [int(one.value) for one in read(profile_of(value), {f"{COUNTER}.1": raw})] == (
        [] if raw in absent else [raw]
    )


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (7, "7"), (-7, "-7"), (b"12.5", "12.5"), ("  8 ", "8"), (b"42\x00", "42"), (1.5, "1.5"),
        (b"", None), (b"notsupported", None), (None, None), (float("nan"), None), (float("inf"), None),
        (b"1e9", None), (b"0x10", None), (b"\xff\xfe", None), ("1.3.6.1", None), (b"9" * 40, None),
    ],
)  # fmt: skip
def test_what_is_a_number(raw, value):
    """Some devices send numbers as text."""
    assert number(raw) == (None if value is None else Decimal(value))


def test_a_negative_power_factor_is_a_leading_one():
    """-946 thousandths, where the profile says signed; -1 means none."""
    value = {"quantity": "power_factor", "oid": f"{POWER}.*", "unit": "1", "scale": Decimal("0.001")}
    signed = profile_of({**value, "signed": True, "absent": [-1]})

    assert [one.value for one in read(signed, {f"{POWER}.1": -946, f"{POWER}.2": -1})] == [Decimal("-0.946")]
    assert read(profile_of(value), {f"{POWER}.1": -946}) == []


def test_a_meter_that_counts_backwards_is_no_load():
    """A signed power below zero (current transformers the wrong way round) is read, and not passed on."""
    profile = profile_of({"quantity": "power", "oid": f"{POWER}.*", "unit": "W", "signed": True})
    told = {f"{POWER}.1": -500}

    assert [one.value for one in read(profile, told)] == [-500]
    assert samples_of(profile, told) == {}


@pytest.mark.parametrize(("said", "seen"), [(1, True), (2, False), (None, True)])
def test_there_is_what_is_not_said_to_be_away(said, seen):
    """A device without that column has its sensors."""
    value = {"quantity": "power", "oid": f"{POWER}.*", "unit": "W", "present": f"{THERE}.{{1}}", "present_if": [1]}
    told = {f"{POWER}.3": 5} | ({} if said is None else {f"{THERE}.3": said})

    assert bool(read(profile_of(value), told)) is seen
    assert bool(samples_of(profile_of(value), told)) is seen


def test_a_unit_can_be_told_by_the_device():
    """0 is Celsius, 1 Fahrenheit, and what 2 is nobody knows."""
    value = {"quantity": "temperature", "oid": f"{COUNTER}.*", "unit": "degC", "scale": Decimal("0.1")}
    value |= {"unit_oid": f"{THERE}.0", "unit_map": {"0": "degC", "1": "degF"}}
    profile = profile_of(value, {"quantity": "power", "oid": f"{POWER}.*", "unit": "W"})

    def unit(code):
        return [(one.value, one.unit) for one in read(profile, {f"{COUNTER}.1": 680, f"{THERE}.0": code})]

    assert (unit(0), unit(1), unit(2)) == ([(68, "degC")], [(68, "degF")], [])


@pytest.mark.parametrize("raw", [2**31 - 1, 2**32 - 1, -(2**31), -1])
def test_the_ends_of_32_bits_are_no_readings(raw):
    """Neither watts nor a counter, signed or not."""
    power = {"quantity": "power", "oid": f"{POWER}.*", "unit": "W"}
    counter = {"quantity": "energy_counter", "oid": f"{COUNTER}.*", "unit": "Wh"}
    signed = {"quantity": "reactive_power", "oid": f"{THERE}.*", "unit": "var", "signed": True, "absent": [-1]}

    assert read(profile_of(power, counter, signed), {f"{oid}.1": raw for oid in (POWER, COUNTER, THERE)}) == []
