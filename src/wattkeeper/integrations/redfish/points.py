"""From the pages of a service to its meters: what measures the machine, what its processors, and what is left alone.

A value is known by the address of its sensor, wherever an excerpt of it appears, and is taken once. The machine's own
energy is looked for in the order EnvironmentMetrics, PowerEquipment, legacy Power, sensors that say "total", power
supplies; what is found first the books use, the others confirm it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from wattkeeper.core.assets import Asset, Meter, natural, undeclared
from wattkeeper.core.live import Discovery
from wattkeeper.integrations.redfish import checks
from wattkeeper.integrations.redfish.link import ROOT, Config, Page, SensorConfig
from wattkeeper.integrations.redfish.values import (
    UNITS,
    address,
    enabled,
    is_limit,
    label,
    links,
    number,
    pointed,
    time_ms,
    unit_of,
    words,
)

PART_CHASSIS = frozenset({"Component", "Module", "Zone", "Card", "Cartridge", "IPBasedDrive", "Expansion"})
"""Chassis.ChassisType of what is part of a machine."""

EQUIPMENT = ("RackPDUs", "PowerShelves", "FloorPDUs", "Switchgear", "TransferSwitches")
"""Collections of PowerEquipment, the one nearest to the machines first: one of them stands for what it feeds."""

PROCESSORS = {"CPU": "cpu", "GPU": "gpu", "Accelerator": "gpu"}
"""Processor.ProcessorType → kind of asset."""

PROCESSOR_CONTEXTS = frozenset({"CPU", "GPU", "GPUSubsystem", "CPUSubsystem", "Accelerator", "ASIC"})
"""PhysicalContext of a sensor that measures a processor."""

PART_WORDS = frozenset({"dram", "memory", "mem", "hbm", "vreg", "vr", "soc", "rail", "io"})
"""Words in the id of a sensor that measures a part of a processor."""

SUBSYSTEMS = PART_WORDS | {
    "cpu",
    "gpu",
    "processor",
    "fan",
    "fans",
    "storage",
    "drive",
    "disk",
    "pcie",
    "sub",
    "subsystem",
}
"""Words in the name of a PowerControl of a part of a machine: Lenovo lists CPU and memory after the server."""

SUPPLY_WORDS = frozenset({"ps", "psu", "pwrsupply", "powersupply"})
"""Words in the id of a sensor of a power supply; OpenBMC gives no PhysicalContext."""

TOTAL_WORDS = frozenset(
    {"total", "power", "pwr", "input", "in", "system", "sys", "chassis", "node", "consumption", "board"}
)
"""Words that the id of a sensor of all that a machine takes is made of; one of them is total, or consumption."""

RANKS = {"redfish": 40, "redfish-power": 42, "redfish-psu": 43, "redfish-total": 44, "redfish-psu-out": 70}
"""Sources of the machine's own energy: which one the books use; lower wins."""

PROCESSOR_RANK = 30
SENSOR_RANK = 60

MOST = 2.0**62
"""What is more does not fit the 64 bits of a reading, and is none."""


@dataclass(frozen=True, slots=True)
class Point:
    """One meter and where its value stands.

    uri, pointer: the page to read, and the JSON pointer to a sensor, an excerpt of one, or a number. scale: size of its
    unit in ours. key: address of the sensor. zero: whether 0 W can be true. reported: whether a MetricReport may
    stand in for the page.
    """

    meter: Meter
    uri: str
    pointer: str
    scale: float
    key: str
    zero: bool = True
    reported: bool = True

    def read(self, page: Page) -> tuple[int, int | None] | None:
        """Return the value and its own time stamp, if it has one; None where the page says nothing that counts."""
        reading, when = None, None
        for reading in pointed(page, self.pointer):
            if not enabled(reading):
                return None
            when = (time_ms(reading.get("ReadingTime")) if isinstance(reading, dict) else None) or when
        value = self.scaled(reading.get("Reading") if isinstance(reading, dict) else reading)
        return None if value is None else (value, when)

    def scaled(self, reading: Any) -> int | None:
        """Return a reading in the unit we keep; None where it is none."""
        value = number(reading)
        if value is None or value * self.scale >= MOST or (value == 0 and not self.zero):
            return None
        return round(value * self.scale)


@dataclass(slots=True)
class Found:
    """Meters met so far, by the address of their sensors; the first place wins."""

    pages: dict[str, Page]
    config: Config
    asset: str
    points: dict[tuple[str, str], Point] = field(default_factory=dict)
    result: Discovery = field(default_factory=Discovery)
    owners: dict[str, str] = field(default_factory=dict)

    def source(self, name: str, machine: str) -> tuple[str, int]:
        """Return source and rank of a machine's values: a second chassis confirms the first, it is not added to it."""
        first = self.owners.get(name, machine) == machine
        return (name, RANKS[name]) if first else (f"{name}/{machine.rpartition('/')[2]}", RANKS[name] + 1)

    def of_machine(self, machine: str, uri: str, pointer: str, unit: str, name: str, *, zero: bool = True) -> bool:
        """Take a value of a whole machine; return whether it can be read."""
        source, rank = self.source(name, machine)
        if not self.add(self.asset, uri, pointer, unit, source, rank, zero=zero):
            return False
        self.owners.setdefault(name, machine)
        return True

    def has(self, asset: str, quantity: str) -> bool:
        """Return whether an asset has a meter of a quantity."""
        return any(p.meter.asset == asset and p.meter.quantity == quantity for p in self.points.values())

    def add(self, asset: str, uri: str, pointer: str, unit: str, source: str, rank: int, *, zero: bool = True) -> bool:
        """Take a value if it can be read now and its sensor was not taken before; return whether it can be read."""
        *_, told = pointed(self.pages.get(uri), pointer)
        reported = True
        if isinstance(told, dict) and number(told.get("LifetimeReading")) is not None:
            told, pointer, reported = None, f"{pointer}/LifetimeReading", False  # no one can set it to zero
        source_uri = told.get("DataSourceUri") if isinstance(told, dict) else None
        key = address(source_uri or f"{uri}#{pointer}")
        quantity, scale = UNITS[unit]
        meter = Meter(
            f"{asset}:{key.removeprefix(ROOT + '/')}:{source}:{quantity}",
            asset,
            quantity,
            source,
            rank,
            accuracy_pct=5.0,
        )
        point = Point(meter, uri, pointer, scale, key, zero, reported)
        if point.read(self.pages.get(uri, {})) is None:
            return False
        self.points.setdefault((key, quantity), point)
        return True

    def excerpts(self, asset: str, uri: str, source: str, rank: int) -> bool:
        """Take power and energy of an outlet, a circuit or a PDU; return whether there was any."""
        power = self.add(asset, uri, "/PowerWatts", "W", source, rank)
        return self.add(asset, uri, "/EnergykWh", "kWh", source, rank) or power

    def sensors(self, within: str = f"{ROOT}/Chassis") -> Iterator[tuple[str, Page, str]]:
        """Yield power and energy sensors below a URI: address, page, unit."""
        for uri in sorted(self.pages, key=natural):
            page = self.pages[uri]
            unit = unit_of(page)
            if uri.startswith(f"{within}/") and "/Sensors/" in uri and unit and not is_limit(uri.rpartition("/")[2]):
                yield uri, page, unit

    def doubt(self, sentence: str) -> None:
        """Note what looks wrong."""
        self.result.doubts.append(sentence)


def find(pages: dict[str, Page], config: Config, asset: str) -> tuple[Discovery, list[Point]]:
    """Return what a service has, from its pages, and where to read it."""
    found = Found(pages, config, asset)
    model = next((label(pages[c], "Model") for c in machines(pages)), "")
    found.result.assets.append(Asset(asset, config.kind, config.parent, model))
    for one in config.sensor:
        _declared(found, one)
    _processors(found)
    _machine(found)
    _equipment(found)
    _supplies(found)
    _legacy(found)
    _named_sensors(found)
    _standing(found)
    found.result.meters = [p.meter for p in found.points.values()]
    found.result.assets += undeclared(found.result.meters, found.result.assets, found.result.assets[0])
    _unplaced(found)
    if not found.points:
        found.doubt(
            f"{config.url} has no power or energy value that can be read. Is power metering licensed and switched on?"
        )
    return found.result, list(found.points.values())


def members(pages: dict[str, Page], collection: str) -> list[str]:
    """Return the members of a collection that are there, in natural order."""
    return sorted((uri for uri in links(pages.get(collection), "Members") if uri in pages), key=natural)


def machines(pages: dict[str, Page]) -> list[str]:
    """Return the chassis that are whole machines: no part by their type, in no other one that is metered; systems first.

    Where all call themselves parts, those that stand in no other one are the machines.
    """
    every = members(pages, f"{ROOT}/Chassis")
    above: dict[str, set[str]] = {uri: set(links(pages[uri], "Links", "ContainedBy")) for uri in every}
    for uri in every:
        for part in links(pages[uri], "Links", "Contains"):
            above.setdefault(part, set()).add(uri)
    metered = {uri for uri in every if _tells(pages, uri)}
    whole = [uri for uri in every if not above[uri] & metered and label(pages[uri], "ChassisType") not in PART_CHASSIS]
    outermost = [uri for uri in every if not above[uri] & set(every)]
    return sorted(whole or outermost, key=lambda uri: not links(pages[uri], "Links", "ComputerSystems"))


def _tells(pages: dict[str, Page], chassis: str) -> bool:
    """Return whether a chassis has a page with its own power or energy."""
    metrics = pages.get(f"{chassis}/EnvironmentMetrics", {})
    own = any(metrics.get(name) for name in ("PowerWatts", "EnergyJoules", "EnergykWh"))
    return own or bool(pages.get(f"{chassis}/Power", {}).get("PowerControl"))


def _declared(found: Found, one: SensorConfig) -> None:
    """Take a value that the site file places."""
    uri, _, pointer = one.uri.partition("#")
    uri = uri.rstrip("/")
    unit = one.unit or unit_of(found.pages.get(uri, {})) or "W"
    if not one.unit and UNITS[unit][0] != one.quantity:
        unit = "W" if one.quantity == "power" else "J"
    if not found.add(one.asset, uri, pointer, unit, one.source, SENSOR_RANK):
        found.doubt(f"{found.config.url}: nothing to read at {one.uri}. Correct the [[agent.redfish.sensor]] table.")


def _processors(found: Found) -> None:
    """Take each processor's own power and energy, under the asset's cpu0, gpu0 and on.

    Numbers follow the natural order of ids; an empty socket keeps its number. A controller may show the processors of
    one machine under two systems: a system without a metered one counts for nothing.
    """
    counts = dict.fromkeys(PROCESSORS.values(), 0)
    for system in members(found.pages, f"{ROOT}/Systems"):
        for kind in counts:
            processors = [
                uri for uri in members(found.pages, f"{system}/Processors")
                if PROCESSORS.get(label(found.pages[uri], "ProcessorType")) == kind
            ]  # fmt: skip
            metered = False
            for place, uri in enumerate(processors, counts[kind]):
                asset, processor = f"{found.asset}/{kind}{place}", found.pages[uri]
                if enabled(processor) and _processor(found, uri, asset):
                    metered = True
                    found.result.assets.append(
                        Asset(asset, kind, found.asset, label(processor, "Model"), _ceiling_w(found, uri, kind))
                    )
            counts[kind] += len(processors) if metered else 0


def _ceiling_w(found: Found, processor: str, kind: str) -> float | None:
    """Return the highest power a GPU can be set to [W]; a CPU's limit is of its mean, and its peaks go far above it."""
    *_, told = pointed(found.pages.get(f"{processor}/EnvironmentMetrics"), "/PowerLimitWatts/AllowableMax")
    return (number(told) or None) if kind == "gpu" else None


def _processor(found: Found, uri: str, asset: str) -> bool:
    chassis = [
        c for c in links(found.pages[uri], "Links", "Chassis")
        if links(found.pages.get(c), "Links", "Processors") == [uri]
    ]  # fmt: skip
    pages = [f"{uri}/EnvironmentMetrics", *(f"{c}/EnvironmentMetrics" for c in chassis)]
    for page in pages:
        for name, unit in (("PowerWatts", "W"), ("EnergyJoules", "J"), ("EnergykWh", "kWh")):
            if not found.has(asset, UNITS[unit][0]) and _is_whole(found, page, name):
                found.add(asset, page, f"/{name}", unit, "redfish", PROCESSOR_RANK)
    for sensor, told, unit in found.sensors():
        mine = any(sensor.startswith(f"{c}/") for c in chassis) or uri in links(told, "RelatedItem")
        whole = (
            label(told, "PhysicalContext") in PROCESSOR_CONTEXTS and not words(sensor.rpartition("/")[2]) & PART_WORDS
        )
        if mine and whole and not found.has(asset, UNITS[unit][0]):
            found.add(asset, sensor, "", unit, "redfish", PROCESSOR_RANK)
    return any(p.meter.asset == asset for p in found.points.values())


def _is_whole(found: Found, uri: str, name: str) -> bool:
    """Return whether an excerpt is of the processor itself: some controllers fill in a rail of the board."""
    *_, told = pointed(found.pages.get(uri), f"/{name}")
    key = address(told.get("DataSourceUri")) if isinstance(told, dict) else ""
    context = label(found.pages.get(key), "PhysicalContext")
    if not context or context in PROCESSOR_CONTEXTS:
        return True
    sensor = key.rpartition("/")[2]
    found.doubt(
        f"{uri} gives {name} of {sensor}, which measures {context}, not the processor: it is not used. "
        "A firmware update may put it right."
    )
    return False


def _machine(found: Found) -> None:
    """Take EnvironmentMetrics of the whole machine: joules where there are, as kWh are coarse."""
    several = []
    for machine in machines(found.pages):
        uri, zero = f"{machine}/EnvironmentMetrics", found.config.kind != "node"
        power = found.of_machine(machine, uri, "/PowerWatts", "W", "redfish", zero=zero)
        energy = found.of_machine(machine, uri, "/EnergyJoules", "J", "redfish", zero=False) or found.of_machine(
            machine, uri, "/EnergykWh", "kWh", "redfish"
        )
        several += [machine] if power or energy else []
    if len(several) > 1:
        found.doubt(
            f"{found.config.url} measures {len(several)} chassis: {', '.join(several)}. The books use the first; "
            "where they stand side by side, declare them as [[agent.redfish.sensor]] with one source."
        )


def _equipment(found: Found) -> None:
    """Take PDUs and power shelves: the collection nearest to the machines, and outlets that the site file names."""
    for name in EQUIPMENT:
        units = members(found.pages, f"{ROOT}/PowerEquipment/{name}")
        for uri in units:
            if not found.excerpts(found.asset, f"{uri}/Metrics", "redfish", RANKS["redfish"]):
                for mains in members(found.pages, f"{uri}/Mains"):
                    found.excerpts(found.asset, mains, "redfish-mains", RANKS["redfish"] + 1)
            _outlets(found, uri)
            found.result.doubts += checks.doubts(found.pages, uri)
        if units and found.has(found.asset, "power"):
            return


def _outlets(found: Found, unit: str) -> None:
    unmetered, unnamed = [], []
    for uri in members(found.pages, f"{unit}/Outlets"):
        name = uri.rpartition("/")[2]
        feeds = found.config.outlets.get(name)
        if feeds is None:
            *_, reading = pointed(found.pages[uri], "/PowerWatts/Reading")
            if number(reading) is not None:
                unnamed.append(name)
        elif not found.excerpts(feeds, uri, "redfish-outlet", RANKS["redfish"]):
            unmetered.append(name)
    if unmetered:
        found.doubt(f"{unit} does not meter outlet {', '.join(unmetered)}: measure {_those(unmetered)} otherwise.")
    if unnamed:
        found.doubt(
            f'{unit} meters outlets {", ".join(unnamed)}: say what they feed, outlets = {{ {unnamed[0]} = "n01" }}.'
        )


def _those(names: list[str]) -> str:
    return "what it feeds" if len(names) == 1 else "what they feed"


def _legacy(found: Found) -> None:
    """Take Chassis/Power, deprecated since 2020 and still all that many servers have."""
    metered = {p.meter.source for p in found.points.values()}
    for machine in machines(found.pages):
        uri = f"{machine}/Power"
        page = found.pages.get(uri, {})
        for i, control in enumerate(_dicts(page.get("PowerControl"))):
            if i and not _is_system(found, control):
                continue  # the first is the machine; the next are its subsystems
            pointer = f"/PowerControl/{i}/PowerConsumedWatts"
            if found.of_machine(machine, uri, pointer, "W", "redfish-power", zero=False):
                break
            if number(control.get("PowerConsumedWatts")) == 0:
                found.doubt(f"{uri} says 0 W: the machine has no power meter, and 0 is not a reading.")
        for i, supply in enumerate(_dicts(page.get("PowerSupplies"))):
            _legacy_supply(found, machine, i, supply, metered)


def _is_system(found: Found, control: Page) -> bool:
    """Return whether a PowerControl is of a whole system by what it relates to, and by its name of no part of it."""
    systems = members(found.pages, f"{ROOT}/Systems") or [f"{ROOT}/Systems/{i}" for i in ("1", "Self", "system")]
    return bool(set(links(control, "RelatedItem")) & set(systems)) and not words(label(control, "Name")) & SUBSYSTEMS


def _dicts(value: Any) -> list[Page]:
    return [one if isinstance(one, dict) else {} for one in value] if isinstance(value, list) else []


def _legacy_supply(found: Found, machine: str, i: int, supply: Page, metered: set[str]) -> None:
    """Take a supply's input and output, unless PowerSubsystem told them already."""
    uri, where = f"{machine}/Power", f"/PowerSupplies/{i}"
    if nameplate(supply):
        found.doubt(
            f"{uri}: PowerInputWatts {supply.get('PowerInputWatts')} of {supply.get('MemberId', i)} is its nameplate, "
            "not a reading: it is not used."
        )
    elif "redfish-psu" not in metered:
        found.of_machine(machine, uri, f"{where}/PowerInputWatts", "W", "redfish-psu")
    if "redfish-psu-out" not in metered:
        for name in ("PowerOutputWatts", "LastPowerOutputWatts"):
            if found.of_machine(machine, uri, f"{where}/{name}", "W", "redfish-psu-out"):
                return


def nameplate(supply: Page) -> bool:
    """Return whether a supply's PowerInputWatts is what it can take at most, and not what it takes.

    It is where it equals a rating, lies above what a full load takes (capacity over an efficiency of 87 %), or would
    mean that half of it is lost.
    """
    input_w = number(supply.get("PowerInputWatts"))
    if not input_w:
        return False
    *_, oem = pointed(supply, "/Oem/Dell/DellPowerSupplyView/Range1MaxInputPowerWatts")
    capacity_w = number(supply.get("PowerCapacityWatts"))
    output_w = number(supply.get("PowerOutputWatts")) or number(supply.get("LastPowerOutputWatts"))
    rated = input_w in (number(oem), capacity_w) or (capacity_w is not None and input_w > capacity_w * 1.15)
    lost = output_w is not None and capacity_w is not None and output_w > capacity_w / 10 and input_w > 2 * output_w
    return rated or lost


def _supplies(found: Found) -> None:
    """Take the metrics of each power supply; together they are what the machine takes in.

    Their EnergyJoules are left alone: some count a few hundred kilojoules and start again, between two samples.
    """
    for uri in found.pages:
        supply, _, tail = uri.rpartition("/")
        if tail != "Metrics" or "/PowerSupplies/" not in uri or not enabled(found.pages.get(supply)):
            continue
        machine = supply.partition("/PowerSubsystem/")[0].partition("/PowerSupplies/")[0]
        found.of_machine(machine, uri, "/InputPowerWatts", "W", "redfish-psu")
        found.of_machine(machine, uri, "/EnergykWh", "kWh", "redfish-psu")
        found.of_machine(machine, uri, "/OutputPowerWatts", "W", "redfish-psu-out")


def _named_sensors(found: Found) -> None:
    """Where no schema says what a machine takes, take sensors whose names do: a total, or the input of each supply."""
    for machine in machines(found.pages):
        sensors = list(found.sensors(machine))
        if not found.has(found.asset, "energy_counter"):
            for uri, page, unit in sensors:
                if unit in ("kWh", "kW.h", "Wh", "W.h") and _into_supply(uri, page):
                    found.of_machine(machine, uri, "", unit, "redfish-psu")
        totals = [(uri, unit) for uri, page, unit in sensors if UNITS[unit][0] == "power" and _is_total(uri, page)]
        for uri, unit in [] if found.has(found.asset, "power") else totals:
            if found.of_machine(machine, uri, "", unit, "redfish-total", zero=False):
                break
        if not found.has(found.asset, "power"):
            for uri, page, unit in sensors:
                if UNITS[unit][0] == "power" and _into_supply(uri, page):
                    found.of_machine(machine, uri, "", unit, "redfish-psu")


def _into_supply(uri: str, page: Page) -> bool:
    """Return whether a sensor measures what goes into a power supply."""
    name = words(uri.rpartition("/")[2])
    into = label(page, "PhysicalSubContext") == "Input" or name & {"in", "input", "pin"}
    supply = label(page, "PhysicalContext") == "PowerSupply" or name & SUPPLY_WORDS
    return bool(into and supply)


def _is_total(uri: str, page: Page) -> bool:
    """Return whether a sensor's id says that it is all the machine takes, and nothing else."""
    name = words(uri.rpartition("/")[2])
    return (
        label(page, "PhysicalContext") != "PowerSupply"
        and bool(name & {"total", "consumption"})
        and name <= TOTAL_WORDS
    )


def _standing(found: Found) -> None:
    """Leave energy counters that say 0 although their asset draws power: there is none, or it does not count yet."""
    now = {key: told[0] for key, p in found.points.items() if (told := p.read(found.pages.get(p.uri, {}))) is not None}
    drawing = {found.points[key].meter.asset for key, value in now.items() if key[1] == "power" and value > 0}
    for key, value in now.items():
        meter = found.points[key].meter
        if key[1] == "energy_counter" and value == 0 and meter.asset in drawing:
            del found.points[key]
            found.doubt(
                f"{found.config.url}: the energy counter {meter.id.split(':')[1]} stands at 0 although power flows: it is "
                "not used until discovery finds it counting."
            )


def _unplaced(found: Found) -> None:
    """Say which power sensors are left: no field of a schema says what they measure."""
    taken = {key for key, _quantity in found.points}
    left = [
        uri for uri, page, unit in found.sensors()
        if uri not in taken and UNITS[unit][0] == "power" and enabled(page) and number(page.get("Reading")) is not None
    ]  # fmt: skip
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        found.doubt(
            f"{found.config.url}: not read, as nothing says what they contain: {', '.join(left[:3])}{more}. "
            "Place those you need with [[agent.redfish.sensor]]."
        )
