"""Register maps as data: what stands where in a meter, in which type and unit, and what means that there is nothing.

A profile is a TOML file. Addresses are those of the request, from 0: a manual that counts from 1, or from 40001 and
30001, has one more. A profile with `models` is one of SunSpec, and its addresses count from the model's id.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pymodbus.client import AsyncModbusTcpClient

from wattkeeper.core.errors import ConfigError
from wattkeeper.core.units import ENERGY_UNITS_MJ, POWER_UNITS_MW
from wattkeeper.integrations.modbus.link import Table

BUILT_IN = Path(__file__).parent / "profiles"

SUNSPEC = "sunspec"

Type = Literal["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
NAMES = (
    "power", "power_l1", "power_l2", "power_l3", "energy",
    "voltage_l1", "voltage_l2", "voltage_l3", "current_l1", "current_l2", "current_l3",
    "power_factor", "power_factor_l1", "power_factor_l2", "power_factor_l3",
)  # fmt: skip
"""What a profile may place. Power and energy are metered; the others check them when a meter is discovered."""

NOT_THERE: dict[str, int] = {
    "int16": 0x8000,
    "uint16": 0xFFFF,
    "int32": 0x8000_0000,
    "uint32": 0xFFFF_FFFF,
    "int64": 0x8000_0000_0000_0000,
    "uint64": 0xFFFF_FFFF_FFFF_FFFF,
}
"""What SunSpec and most makers write where a value is not implemented; for floats it is NaN."""

SIZES: dict[str, Fraction] = {
    **{unit: Fraction(size) for unit, size in POWER_UNITS_MW.items()},
    **{unit: Fraction(size) for unit, size in ENERGY_UNITS_MJ.items()},
    "V": Fraction(1),
    "A": Fraction(1),
    "ratio": Fraction(1),
    "percent": Fraction(1, 100),
}
"""Size of a unit in what we keep: mW, mJ, V, A, 1."""

LARGEST = 2**62
"""A value above is garbage: 146 years of a gigawatt, in mJ."""


class Point(BaseModel):
    """One value: where it stands, and how to read it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: int = Field(ge=0, le=65_535)
    type: Type
    unit: str
    scale: float = Field(1.0, gt=0)
    scale_address: int | None = Field(None, ge=0, le=65_535)
    absent: tuple[int, ...] = ()
    wrap: float | None = Field(None, gt=0)

    @property
    def count(self) -> int:
        """Registers it takes."""
        return int(self.type.removeprefix("u")[-2:]) // 16

    @property
    def size(self) -> Fraction:
        """What one count is in the unit we keep, before its scale register."""
        return Fraction(str(self.scale)) * SIZES[self.unit]

    def raw(self, registers: list[int], order: Literal["big", "little"]) -> int | float | None:
        """Return the number that stands in its registers; None for a value that means none."""
        words = registers if order == "big" else registers[::-1]
        bits = int.from_bytes(b"".join(word.to_bytes(2, "big") for word in words), "big")
        if bits == NOT_THERE.get(self.type) or bits in self.absent:
            return None
        kind = AsyncModbusTcpClient.DATATYPE[self.type.upper()]
        found = AsyncModbusTcpClient.convert_from_registers(words, kind)
        if not isinstance(found, int | float) or not math.isfinite(found):
            return None
        return found


class Profile(BaseModel):
    """A meter's register map.

    order: "big" where the high word comes first. together: unused registers that may be read along to save a request.
    accuracy_pct: the meter's class, without its current transformers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    source: str
    table: Table = "holding"
    order: Literal["big", "little"] = "big"
    together: int = Field(16, ge=0, le=120)
    longest: int = Field(125, ge=1, le=125)
    accuracy_pct: float = Field(1.0, gt=0)
    models: tuple[int, ...] = ()
    points: dict[str, Point]

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for name, point in self.points.items():
            if name not in NAMES:
                raise ValueError(f"points has no place for '{name}'; choose from {', '.join(NAMES)}")
            if point.unit not in (units := _units(name)):
                raise ValueError(f"points.{name}.unit is '{point.unit}'; choose one of {', '.join(units)}")
            if point.count > self.longest:
                raise ValueError(f"points.{name} takes {point.count} registers, more than longest = {self.longest}")
        if not {"power", "energy"} & set(self.points):
            raise ValueError("points has neither power nor energy")
        return self


def _units(name: str) -> Iterable[str]:
    """Return the units that a point of this name may have."""
    return {
        "energy": ENERGY_UNITS_MJ,
        "power": POWER_UNITS_MW,
        "voltage": ("V",),
        "current": ("A",),
        "power_factor": ("ratio", "percent"),
    }[name.partition("_l")[0]]


def profiles(folder: Path | None = None) -> dict[str, Profile]:
    """Return the profiles that come along, and those of a folder, which win. Raises ConfigError for one that is wrong."""
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"profiles = '{folder}' is no folder. Name the one that holds your *.toml files.")
    files = [*sorted(BUILT_IN.glob("*.toml")), *(sorted(folder.glob("*.toml")) if folder else [])]
    return {file.stem: _load(file) for file in files}


def chosen(name: str, known: dict[str, Profile]) -> tuple[Profile, ...]:
    """Return the profile of a name, or all of SunSpec. Raises UnknownProfileError."""
    if name == SUNSPEC:
        return tuple(p for p in known.values() if p.models)
    if name not in known or known[name].models:
        plain = sorted([SUNSPEC, *(n for n, p in known.items() if not p.models)])
        raise UnknownProfileError(name, plain)
    return (known[name],)


class UnknownProfileError(ConfigError):
    """A table names a profile that is not there."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(
            f"No Modbus profile named '{name}'. Known: {', '.join(known)}. Set profiles = FOLDER for your own."
        )


def _load(file: Path) -> Profile:
    try:
        return Profile.model_validate(tomllib.loads(file.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Cannot read the Modbus profile {file}: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(f"The Modbus profile {file} is wrong{f' at {where}' * bool(where)}: {said}.") from error
