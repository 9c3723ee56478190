"""A profile: what a family of PDUs, UPSes or meters tells over SNMP, as a TOML file. A new model is a new file, no code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from decimal import Decimal
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wattkeeper.core.errors import ConfigError
from wattkeeper.core.units import ENERGY_UNITS_MJ, POWER_UNITS_MW

BUILT_IN = Path(__file__).parent / "profiles"

OID = r"^\d+(\.\d+)+$"
PATTERN = r"^\d+(\.(\d+|\*))+$"
TEMPLATE = r"^(\d+(\.(\d+|\{[1-9]\}))+)?$"

UNITS: dict[str, frozenset[str]] = {
    "energy_counter": frozenset(ENERGY_UNITS_MJ),
    "power": frozenset(POWER_UNITS_MW),
    "peak_power": frozenset(POWER_UNITS_MW),
    "apparent_power": frozenset({"VA", "kVA"}),
    "rated_apparent_power": frozenset({"VA", "kVA"}),
    "reactive_power": frozenset({"var", "kvar"}),
    "power_factor": frozenset({"1"}),
    "voltage": frozenset({"V", "mV"}),
    "rated_voltage": frozenset({"V", "mV"}),
    "current": frozenset({"A", "mA"}),
    "rated_current": frozenset({"A", "mA"}),
    "frequency": frozenset({"Hz"}),
    "load": frozenset({"%"}),
    "temperature": frozenset({"degC", "degF"}),
    "humidity": frozenset({"%RH"}),
    "reset_time": frozenset({"s"}),
}
"""What a profile can name → the units it may be in. The first two become samples, the rest serves to check them."""

Quantity = Literal[
    "energy_counter", "power", "peak_power", "apparent_power", "rated_apparent_power", "reactive_power", "power_factor",
    "voltage", "rated_voltage", "current", "rated_current", "frequency", "load", "temperature", "humidity", "reset_time",
]  # fmt: skip

Level = Literal["device", "inlet", "cord", "output", "input", "phase", "line", "bank", "breaker", "outlet", "sensor"]


class Value(BaseModel):
    """One quantity of each row of a group: `[[group.value]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quantity: Quantity = Field(description="What it is.")
    oid: str = Field(pattern=PATTERN, description="Where it stands; each * is one part of the row's index.")
    unit: str = Field(description="Its unit, after scaling.")
    scale: Decimal = Field(Decimal(1), gt=0, description="Units in one step of the raw number.")
    decimals: str = Field("", pattern=TEMPLATE, description="OID of its number of decimals; {1} is the first *.")
    unit_oid: str = Field("", pattern=TEMPLATE, description="OID of a number that says the unit.")
    unit_map: dict[str, str] = Field(default_factory=dict, description="That number → the unit.")
    absent: list[int] = Field(default_factory=list, description="Raw numbers that mean that there is no value.")
    signed: bool = Field(False, description="A number below zero is a value. Otherwise it means that there is none.")
    present: str = Field("", pattern=TEMPLATE, description="OID of a number that says whether the value is there.")
    present_if: list[int] = Field(default_factory=list, description="That number, where it is.")
    wrap: int = Field(0, ge=0, description="Raw number at which a counter starts again at 0. 0: not known.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        wrong = [unit for unit in (self.unit, *self.unit_map.values()) if unit not in UNITS[self.quantity]]
        if wrong:
            raise ValueError(f"'{wrong[0]}' is no unit of {self.quantity}: {', '.join(sorted(UNITS[self.quantity]))}")
        if bool(self.unit_oid) != bool(self.unit_map):
            raise ValueError("unit_oid and unit_map go together")
        if bool(self.present) != bool(self.present_if):
            raise ValueError("present and present_if go together")
        if self.wrap and self.quantity != "energy_counter":
            raise ValueError("only an energy_counter has a wrap")
        most = max((int(n) for one in self.others for n in re.findall(r"\{(\d)\}", one)), default=0)
        if most > self.parts:
            raise ValueError(f"{{{most}}} is asked for, and oid has {self.parts} *")
        return self

    @property
    def others(self) -> tuple[str, ...]:
        """OIDs that are needed to read the value, beside its own."""
        return tuple(one for one in (self.decimals, self.unit_oid, self.present) if one)

    @property
    def parts(self) -> int:
        """How many parts the index of a row has."""
        return self.oid.count("*")

    @cached_property
    def matcher(self) -> re.Pattern[str]:
        """Matches the OIDs of the value and gives their index."""
        return re.compile(re.escape(self.oid).replace(r"\*", r"(\d+)"))


class Group(BaseModel):
    """One level of a device: its inlets, phases, outlets: `[[group]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Level = Field(description="What its rows are.")
    label: str = Field("", description="Name of a row; {1} is the first part of its index.")
    label_oid: str = Field("", pattern=TEMPLATE, description="OID of that name, where the device has one.")
    first_unit: str = Field(
        "", description="Index of the first of several units in a chain; rows of the others are named UNIT/LABEL."
    )
    whole: int = Field(0, ge=0, description="Rows together are the whole device: 1 first choice, then 2, 3. 0: never.")
    value: list[Value] = Field(min_length=1, description="What is known of each row.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if len({value.parts for value in self.value}) > 1:
            raise ValueError("its values have different numbers of * in oid, so they are not rows of one group")
        asked = [int(n) for n in re.findall(r"\{(\d)\}", self.label + self.label_oid)]
        if max(asked, default=0) > self.value[0].parts:
            raise ValueError(f"{{{max(asked)}}} is asked for, and oid has {self.value[0].parts} *")
        if self.value[0].parts and not asked:
            raise ValueError("label is missing: its rows need names, such as label = '{1}'")
        return self


class Profile(BaseModel):
    """One family of models. The file's name is its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(description="Which models it is for.")
    match: list[str] = Field(min_length=1, description="What their sysObjectID starts with.")
    probe: str = Field(pattern=OID, description="A part of the tree that these models have.")
    order: int = Field(100, description="Where several profiles fit, the lowest is taken.")
    model: str = Field("", pattern=TEMPLATE, description="OID of the model's name.")
    group: list[Group] = Field(min_length=1, description="Its levels.")
    name: str = ""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        wrong = [prefix for prefix in self.match if not re.match(OID, prefix)]
        if wrong:
            raise ValueError(f"match has '{wrong[0]}', which is no OID")
        if not any(group.whole for group in self.group):
            raise ValueError("no group says whole: what measures the device as a whole?")
        return self

    def fit(self, object_id: str) -> int:
        """Return how many parts of a sysObjectID the profile knows; 0 where it does not fit."""
        return max((len(p.split(".")) for p in self.match if f"{object_id}.".startswith(f"{p}.")), default=0)

    @cached_property
    def scalars(self) -> tuple[str, ...]:
        """The OIDs that are objects of their own."""
        return tuple(sorted(oid for oid in self._oids if not re.search(r"[*{]", oid)))

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """The subtrees that hold the values of rows; none lies in another."""
        wanted = {re.split(r"\.[*{]", oid)[0] for oid in self._oids if re.search(r"[*{]", oid)}
        return tuple(sorted(r for r in wanted if not any(r.startswith(f"{other}.") for other in wanted)))

    @cached_property
    def _oids(self) -> frozenset[str]:
        values = [value for group in self.group for value in group.value]
        labels = [group.label_oid for group in self.group]
        return frozenset(filter(None, [self.model, *labels, *(oid for v in values for oid in (v.oid, *v.others))]))


def filled(template: str, index: Iterable[str]) -> str:
    """Return an OID or a name with the parts of an index put in."""
    for place, part in enumerate(index, 1):
        template = template.replace(f"{{{place}}}", part)
    return template


def candidates(profiles: Iterable[Profile], object_id: str) -> list[Profile]:
    """Return the profiles that may fit a sysObjectID, the closest first; all where the device does not tell it."""
    if not object_id:
        return sorted(profiles, key=lambda p: (p.order, p.name))
    fitting = [profile for profile in profiles if profile.fit(object_id)]
    return sorted(fitting, key=lambda p: (-p.fit(object_id), p.order, p.name))


@lru_cache(maxsize=16)
def profiles_of(folder: Path | None = None) -> dict[str, Profile]:
    """Return the profiles by name: ours, and those of a folder, which replace ours of the same name."""
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"Profile folder {folder} is not there. Correct profiles in [[agent.snmp]].")
    files = [*BUILT_IN.glob("*.toml"), *(folder.glob("*.toml") if folder else ())]
    return {file.stem: load(file) for file in sorted(files, key=lambda file: (file.parent != BUILT_IN, file.name))}


def load(file: Path) -> Profile:
    """Return the profile in a file. Raises ConfigError with file and key where it is wrong."""
    try:
        table = tomllib.loads(file.read_text("utf-8"), parse_float=Decimal)
        return Profile.model_validate({**table, "name": file.stem})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Profile {file} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"Profile {file}: {place + ': ' if place else ''}{said}.") from error
