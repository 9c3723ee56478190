"""Assets: the inventory, one row each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wattkeeper.core.assets import Asset
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.integrations.csvfile.table import Table

TEXTS = ("id", "kind", "parent", "model", "remainder", "embodied_source")
SWAPPED = str.maketrans(",.", ".,")
NUMBERS = ("max_power_w", "idle_power_w", "slice", "embodied_kg", "lifetime_years")


def read_assets(table: Table) -> Iterator[Intake]:
    """Yield the assets of a file. Raises ImportFileError when the file as a whole cannot be used."""
    required = ("id", "kind")
    wanted = table.find(required, [name for name in (*TEXTS, *NUMBERS) if name not in required])
    seen: dict[str, int] = {}
    for batch in table.batches(wanted):
        intake = Intake(source=table.name, rejects=list(batch.rejects))
        for cells in batch.cells.iter_rows(named=True):
            row = cells.pop("row")
            try:
                asset = _asset(cells, table.layout.decimal, seen)
            except ConfigError as error:
                text = ", ".join("" if cell is None else str(cell) for cell in cells.values())
                intake.rejects.append(Reject(str(table.path), row, str(error), text))
            else:
                seen[asset.id] = row
                intake.assets.append(asset)
        yield intake


def _asset(cells: dict[str, Any], decimal: str, seen: dict[str, int]) -> Asset:
    """Return one asset; what its row leaves empty takes the default. Raises ConfigError saying what is wrong."""
    given = {name: cell for name, cell in cells.items() if cell is not None}
    for name in ("id", "kind"):
        if name not in given:
            raise ConfigError(f"{name} is missing")
    if str(given["id"]) in seen:
        raise ConfigError(f"asset '{given['id']}' stands already in row {seen[str(given['id'])]}")
    facts: dict[str, Any] = {n: _number(n, c, decimal) if n in NUMBERS else str(c) for n, c in given.items()}
    return Asset(**facts)


def _number(name: str, cell: Any, decimal: str) -> float:
    try:
        value = float(cell.translate(SWAPPED) if isinstance(cell, str) and decimal == "," else cell)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is not a number") from None
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{name} is negative or not finite")
    if name == "slice" and not 0 < value <= 1:
        raise ConfigError("slice lies outside 0 to 1")
    if name in ("lifetime_years", "max_power_w") and value == 0:
        raise ConfigError(f"{name} is 0")
    return value
