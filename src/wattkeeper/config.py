"""The site file: one typed tree from TOML. It generates its own reference page (docs/reference/site-file.md)."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from ClusterShell.NodeSet import NodeSet, NodeSetParseError
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wattkeeper.core.assets import ASSUMED_PCT, QUANTITIES, Asset, AssetTree, Meter
from wattkeeper.core.averages import AVERAGE, average
from wattkeeper.core.clock import zone
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.units import UNITS_OF_QUANTITY


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Number = Annotated[float, Field(allow_inf_nan=False)]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SiteConfig(_Table):
    """One site: one postal address, one grid connection, one clock."""

    id: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the site; the root of its assets. Letters, digits, dot, dash and underscore.",
    )
    timezone: str = Field("UTC", description="IANA time zone of its days and months.")
    zone: str = Field("", description="Grid zone, such as DE-LU. No default is ever guessed.")
    intensity: _Amount | str | None = Field(
        None,
        description="Carbon intensity: a number [g CO2e/kWh], the id of an imported signal, or "
        '"average:DE" for the yearly average of a country or cloud region in the embedded table.',
    )
    price: _Number | str | None = Field(None, description="Tariff: a number [currency/kWh] or the id of a signal.")
    currency: str = Field("EUR", description="Currency of the tariff: that of its signal, and the same at all sites.")
    water: _Amount | str | None = Field(
        None, description="Water at the site and in generation: a number [L/kWh of facility energy] or a signal."
    )
    pue: Annotated[float, Field(ge=1, allow_inf_nan=False)] | str | None = Field(
        None,
        description="Facility energy over IT energy: a number of at least 1 or the id of a signal. "
        "Left out where a facility meter stands on the site itself.",
    )

    @field_validator("intensity", "price", "water", "pue")
    @classmethod
    def _average_is_known(cls, named: float | str | None, key: ValidationInfo) -> float | str | None:
        if isinstance(named, str) and named.startswith(AVERAGE):
            if key.field_name != "intensity":
                raise ValueError("yearly averages are of intensity only; write a number or the id of a signal")
            try:
                average(named.removeprefix(AVERAGE))
            except ConfigError as error:
                raise ValueError(str(error).rstrip(".")) from None
        return named


class AssetConfig(_Table):
    """One asset: a hall, a rack, a node, a device, a cooling loop."""

    id: str = Field(min_length=1, description="Unique name, path-like: n01, n01/gpu0.")
    kind: str = Field(description="hall, rack, node, gpu, mig, cpu, dram, device, cooling, distribution or facility.")
    parent: str = Field(description="The asset it stands in.")
    model: str = Field("", description="Maker's model name.")
    max_power_w: float | None = Field(None, gt=0, description="Power it cannot exceed [W]. Default: by kind.")
    idle_power_w: float | None = Field(
        None, ge=0, description="At or below this a held GPU counts as idle, where no utilisation is read [W]."
    )
    remainder: Literal["", "jobs", "overhead", "unaccounted"] = Field(
        "",
        description="Account of what its meter shows beyond its parts. "
        "A node: jobs (default) or overhead. A site: overhead (default) or unaccounted. A hall or rack: unaccounted "
        "(default) or overhead.",
    )
    slice: float = Field(1.0, gt=0, le=1, description="For a MIG instance: the part of the GPU it is.")
    embodied_kg: float | None = Field(None, ge=0, description="Manufacturing carbon [kg CO2e].")
    embodied_source: str = Field("", description="Where that figure comes from.")
    lifetime_years: float = Field(5.0, gt=0, description="Years the manufacturing carbon is spread over.")


class NodeGroupConfig(_Table):
    """Many equal nodes at once."""

    names: str = Field(min_length=1, description="Host list such as n[01-16].")
    parent: str = Field(description="Rack, hall or site they stand in.")
    model: str = Field("", description="Maker's model name of the node.")
    cpus: int = Field(0, ge=0, description="CPUs in each, as the scheduler counts them.")
    gpus: int = Field(0, ge=0, description="GPUs in each, named <node>/gpu0 and on.")
    gpu_model: str = Field("", description="Maker's model name of the GPUs.")
    max_power_w: float | None = Field(None, gt=0, description="Power a node cannot exceed [W].")
    gpu_max_power_w: float | None = Field(None, gt=0, description="Power a GPU cannot exceed [W].")
    gpu_idle_power_w: float | None = Field(None, ge=0, description="As idle_power_w, for each GPU [W].")
    node_embodied_kg: float | None = Field(None, ge=0, description="Manufacturing carbon without GPUs [kg CO2e].")
    gpu_embodied_kg: float | None = Field(None, ge=0, description="Manufacturing carbon of one GPU [kg CO2e].")
    embodied_source: str = Field("", description="Where those figures come from.")
    lifetime_years: float = Field(5.0, gt=0, description="Years the manufacturing carbon is spread over.")


class MeterConfig(_Table):
    """One meter: which asset it measures, what it reports, how good it is."""

    id: str = Field(min_length=1, description="Unique name, as used in the readings.")
    asset: str = Field(description="The asset it measures: everything inside that asset is included.")
    quantity: Literal["energy_counter", "energy_interval", "power", "utilisation"] = Field(
        description="What it reports."
    )
    source: str = Field("csv", description="Who reports it. Equal sources on one asset add up, others only confirm.")
    rank: int = Field(100, description="Which source the books use where several measure one asset; lower wins.")
    accuracy_pct: float = Field(ASSUMED_PCT, ge=0, description="Half-width of the maker's error band [% of reading].")
    wrap_mj: int = Field(0, ge=0, description="Where the counter returns to 0 [mJ]; 0 if it never does.")
    interval_ms: int = Field(0, ge=0, description="Time one energy_interval value covers, ending at its stamp [ms].")
    max_gap_ms: int = Field(300_000, gt=0, description="A longer step between two readings is a gap [ms].")
    resolution_mj: int = Field(
        0, ge=0, description="Smallest step of a counter [mJ]: 360000000 for one that counts 0.1 kWh; 0 if unknown."
    )


class CsvConfig(_Table):
    """How to read one CSV or Parquet layout: `wattkeeper import csv FILE --as NAME`."""

    kind: Literal["readings", "jobs", "allocations", "signals", "assets"] = Field(description="What a row is.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Our column name → the file's. Unnamed ones are looked up by our name. Times are called time, "
        "start, end and submit here, or time_ms and so on where the file has milliseconds since 1970.",
    )
    wide: bool = Field(False, description="Readings only: each further column is one meter, named by its header.")
    wide_columns: str = Field("", description="With wide: take only the columns that match this pattern (fnmatch).")
    quantity: Literal["", "energy_counter", "energy_interval", "power", "utilisation"] = Field(
        "", description="Readings only: what the values are. Left out: integers in the units the book keeps."
    )
    unit: str = Field("", description="Unit of the values: W, kW, J, Wh, kWh, mJ, ratio, percent, g/kWh, EUR/MWh …")
    meter: str = Field(
        "", description="Readings only: meter id for a file that has no meter column; {header} is filled in."
    )
    asset: str = Field(
        "", description="Readings only: asset of new meters; {meter}, {column} (with wide) and {header} are filled in."
    )
    asset_kind: str = Field("node", description="Readings only: kind of assets met for the first time.")
    parent: str = Field(
        "", description="Readings only: parent of assets met for the first time, filled in as asset is."
    )
    signal: str = Field(
        "", description="Signals only: signal id for a file that has no signal column; {header} is filled in."
    )
    signal_kind: Literal["", "intensity", "price", "water", "pue"] = Field(
        "", description="Signals only. Default: the part of the signal id before its colon."
    )
    method: str = Field("", description="Signals only: average or marginal, lifecycle or direct.")
    provider: str = Field("", description="Signals only: who published the values.")
    hold_ms: int = Field(
        0,
        ge=0,
        description="Signals without an end column: the longest a value may hold [ms]; after that comes a hole. "
        "Default: the largest step between rows that occurs regularly.",
    )
    scale: float = Field(1.0, ge=1e-9, le=1e9, description="Values are multiplied by this first.")
    decimal: Literal[".", ","] = Field(".", description="Decimal mark of numbers in text.")
    time_format: str = Field(
        "", description='strptime format, or "s", "ms", "us" for epoch numbers. Default: ISO 8601, found per value.'
    )
    timezone: str = Field("UTC", description="Zone of times that carry no offset.")
    shift_ms: int = Field(0, description="Added to every time [ms]. It is named on every report.")
    accuracy_pct: float = Field(
        ASSUMED_PCT, ge=0, description="Readings only: error band of new meters [% of reading]."
    )
    max_gap_ms: int = Field(300_000, gt=0, description="Readings only: gap limit of new meters [ms].")
    interval_ms: int = Field(0, ge=0, description="Readings only: time one energy_interval value covers [ms].")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.wide and self.kind != "readings":
            raise ValueError(f"wide is for readings, and this layout is for {self.kind}")
        if self.quantity == "energy_interval" and not self.interval_ms:
            raise ValueError("energy_interval needs interval_ms, the time one value covers")
        if self.kind != "readings":
            return self
        known = UNITS_OF_QUANTITY.get(self.quantity, {})
        if not self.quantity and self.unit:
            raise ValueError(f"unit is '{self.unit}' but quantity is not set; choose one of {', '.join(QUANTITIES)}")
        if self.quantity and not self.unit and "unit" not in self.columns:
            raise ValueError(f"quantity {self.quantity} needs a unit: one of {', '.join(known)}")
        if self.unit and self.unit not in known:
            raise ValueError(f"unit '{self.unit}' is not one of {self.quantity}: {', '.join(known)}")
        return self


class PolicyConfig(_Table):
    """Choices the books make that a reader may want to make otherwise."""

    idle_utilisation: float = Field(
        0.01, ge=0, le=1, description="A held GPU below this utilisation is held idle, sample by sample."
    )


class AgentConfig(_Table):
    """The agent that reads live meters. Each further table, `[[agent.NAME]]`, is one of the integration NAME.

    Its keys are on the page of the integration; `period_s` and `give_up_s` may stand in each of them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, list[dict[str, Any]]]

    name: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description="The agent's name, unique among all agents. Default: the machine's name without its domain.",
    )
    book: Path | None = Field(None, description="Keep readings in this book; `wattkeeper attribute` takes them in.")
    url: str = Field(
        "", pattern=r"^(https?://.+)?$", description="Or send them to this server, such as https://watts:8443."
    )
    token: SecretStr = Field(SecretStr(""), description="The server's token for this agent.")
    token_file: Path | None = Field(None, description="File that holds the token, instead of token.")
    ca_file: Path | None = Field(None, description="Certificate (PEM) that signed the server's. Default: the system's.")
    send_timeout_s: float = Field(30.0, gt=0, description="Longest time the server may take for one batch [s].")
    spool: Path = Field(
        Path("/var/lib/wattkeeper/spool"), description="Folder for readings that the server has not taken yet."
    )
    spool_limit_bytes: int = Field(
        2**30,
        ge=2**20,
        description="Most the spool may hold; then detail goes, the oldest last, and energy counters "
        "keep their energy.",
    )
    batch_s: float = Field(10.0, gt=0, description="Readings are written at least so often: all a crash can cost [s].")
    batch_rows: int = Field(10_000, ge=1, description="A batch with so many readings is written at once.")
    backoff_max_s: float = Field(
        60.0, gt=0, description="A device or server that fails is tried at least so often [s]."
    )
    rediscover_s: float = Field(900.0, gt=0, description="What a device has is looked at anew so often [s].")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.book and self.url:
            raise ValueError("give book or url, not both")
        if self.token.get_secret_value() and self.token_file:
            raise ValueError("give token or token_file, not both")
        return self

    @property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """The tables of each integration, as they stand in the file."""
        return self.__pydantic_extra__

    def secret(self) -> str:
        """Return the token, read anew each time. Raises ConfigError where its file cannot be read."""
        if self.token_file is None:
            return self.token.get_secret_value()
        try:
            return self.token_file.read_text("utf-8").strip()
        except OSError as error:
            raise ConfigError(f"Cannot read token_file {self.token_file}: {error.strerror}.") from error


class SiteFile(_Table):
    """The whole site file."""

    name: str = Field("", description="Name of the cluster or organisation, printed on reports.")
    site: list[SiteConfig] = Field(min_length=1, description="The sites.")
    asset: list[AssetConfig] = Field(default_factory=list, description="Assets, one by one.")
    nodes: list[NodeGroupConfig] = Field(default_factory=list, description="Assets, many equal nodes at once.")
    meter: list[MeterConfig] = Field(default_factory=list, description="Meters the imports do not declare themselves.")
    csv: dict[str, CsvConfig] = Field(default_factory=dict, description="Named CSV and Parquet layouts.")
    grid: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="How grid signals are fetched, by provider: [grid.electricitymaps] and so on; the keys stand in "
        "each integration's README.",
    )
    default_parent: str = Field("", description="Where nodes go that an import meets first. Default: the only site.")
    policy: PolicyConfig = Field(default_factory=PolicyConfig, description="Choices of the books.")
    agent: AgentConfig = Field(default_factory=AgentConfig, description="The agent that reads live meters.")

    @model_validator(mode="after")
    def _costs_add_up(self) -> Self:
        currencies = sorted({one.currency for one in self.site})
        if len(currencies) > 1 and any(one.price is not None for one in self.site):
            raise ValueError(
                f"sites have several currencies ({', '.join(currencies)}), and their costs are added: "
                "give every site the same currency, and a book to sites of another"
            )
        return self

    def site_named(self, site: str) -> SiteConfig:
        """Return one site. Raises ConfigError when there is none of that name."""
        for one in self.site:
            if one.id == site:
                return one
        raise ConfigError(f"The site file has no site '{site}'. It has {', '.join(s.id for s in self.site)}.")

    @property
    def parent_of_new_nodes(self) -> str:
        """Where nodes go that an import meets first. Raises ConfigError where two sites leave it open."""
        if self.default_parent:
            return self.default_parent
        if len(self.site) == 1:
            return self.site[0].id
        raise ConfigError("The site file has several sites. Set default_parent to say where unknown nodes stand.")

    def cpus(self) -> dict[str, int]:
        """Return the CPUs of each declared node."""
        return {node: group.cpus for group in self.nodes for node in expand_hosts(group.names)}

    def assets(self) -> AssetTree:
        """Return the declared assets as a tree. Raises ConfigError for one that is declared twice or has no place."""
        found = [Asset(s.id, "site") for s in self.site]
        found += [Asset(**a.model_dump()) for a in self.asset]
        for group in self.nodes:
            found += _expand(group)
        _once([a.id for a in found], "Asset")
        tree = AssetTree.of(found)
        for a in found:
            if a.kind == "mig" and a.parent is not None and tree[a.parent].kind != "gpu":
                raise ConfigError(
                    f"MIG instance '{a.id}' stands in '{a.parent}', which is no gpu but a {tree[a.parent].kind}."
                )
        return tree

    def meters(self) -> list[Meter]:
        """Return the declared meters. Raises ConfigError for one that is declared twice or lacks something."""
        _once([m.id for m in self.meter], "Meter")
        return [Meter(**m.model_dump()) for m in self.meter]


class AgentFile(SiteFile):
    """A site file as an agent reads it: the sites may be left out."""

    site: list[SiteConfig] = Field(default_factory=list, description="The sites.")


_Model = TypeVar("_Model", bound=BaseModel)
_File = TypeVar("_File", bound=SiteFile)


def _once(ids: Sequence[str], what: str) -> None:
    twice = next((one for one, times in Counter(ids).items() if times > 1), None)
    if twice is not None:
        raise ConfigError(f"{what} '{twice}' is declared twice in the site file. Keep one of them.")


def _expand(group: NodeGroupConfig) -> list[Asset]:
    shared: dict[str, Any] = {"embodied_source": group.embodied_source, "lifetime_years": group.lifetime_years}
    found = []
    for name in expand_hosts(group.names):
        found.append(
            Asset(
                name, "node", group.parent, group.model, group.max_power_w, embodied_kg=group.node_embodied_kg, **shared
            )
        )
        found += [
            Asset(
                f"{name}/gpu{i}", "gpu", name, group.gpu_model, group.gpu_max_power_w, group.gpu_idle_power_w,
                embodied_kg=group.gpu_embodied_kg, **shared,
            )
            for i in range(group.gpus)
        ]  # fmt: skip
    return found


MOST_HOSTS = 200_000
"""Hosts that one list may name; more is a slip of the pen, and would fill the memory."""

_BRACKETS, _RANGE = re.compile(r"\[([^\]]*)\]"), re.compile(r"(\d+)-(\d+)(?:/(\d+))?")


def expand_hosts(names: str) -> list[str]:
    """Return the host names of a list such as n[01-16,20]. Raises ConfigError when it cannot be read or is too long."""
    if (many := _hosts_at_most(names)) > MOST_HOSTS:
        raise ConfigError(f"Host list '{names[:80]}' names up to {many:,} hosts; at most {MOST_HOSTS:,} are read.")
    try:
        return [str(n) for n in NodeSet(names)]
    except NodeSetParseError as error:
        raise ConfigError(f"Host list '{names}' cannot be read: {error}. Write it like n[01-16,20].") from error


def _hosts_at_most(names: str) -> int:
    """Return how many hosts a list may name at most, without naming them: they are counted before they are made."""
    many = 0
    for one in re.split(r",(?![^\[]*\])", names):
        here = 1
        for inside in _BRACKETS.findall(one):
            here *= sum(_range_length(part) for part in inside.split(","))
        many += here
    return many


def _range_length(part: str) -> int:
    found = _RANGE.fullmatch(part.strip())
    if found is None:
        return 1
    first, last, step = (int(x or 1) for x in found.groups())
    return max((last - first) // max(step, 1) + 1, 1)


def load(path: Path) -> SiteFile:
    """Return the site file. Raises ConfigError naming the key at fault."""
    return _load(path, SiteFile)


def load_agent(path: Path) -> AgentFile:
    """Return a site file that may hold nothing but the agent. Raises ConfigError naming the key at fault."""
    return _load(path, AgentFile)


def parse(text: str, where: str = "site file") -> SiteFile:
    """Return a site file from its text. Raises ConfigError naming the key at fault."""
    return _parse(text, where, SiteFile)


def validate(model: type[_Model], table: dict[str, Any], where: str) -> _Model:
    """Return a table as its model. Raises ConfigError naming the key at fault."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [p for p in first["loc"] if isinstance(p, int) or (p not in _BRANCHES and "[" not in p)]
        said = first["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
        if first["type"] == "missing":
            said = "is missing"
        if first["type"] == "extra_forbidden":
            said = f"unknown key{_near(str(keys[-1]), model, keys[:-1])}"
        more = sum(e["loc"][: len(keys)] != tuple(keys) for e in error.errors()[1:])
        tail = f" ({more} more)" if more else ""
        end = "" if said.endswith("?") else "."
        raise ConfigError(": ".join(filter(None, (where, _place(keys), f"{said}{end}{tail}")))) from error


_BRANCHES = frozenset({"float", "str", "int", "bool", "constrained-float", "constrained-int", "constrained-str"})
"""What a fault's place names beside keys: which of several types was tried."""


def _place(keys: Sequence[str | int]) -> str:
    """Return where a key stands, as the file writes it: [[site]] number 1, pue."""
    words: list[str] = []
    for i, key in enumerate(keys):
        if isinstance(key, int):
            words[-1] = f"[[{keys[i - 1]}]] number {key + 1}"
        elif i == 1 and keys[0] == "csv":
            words[-1] = f"[csv.{key}]"
        else:
            words.append(key if i == len(keys) - 1 else f"[{key}]")
    return ", ".join(words)


def _near(key: str, model: type[BaseModel], path: Sequence[str | int]) -> str:
    """Return the key that was probably meant, as the end of a sentence."""
    for step in path:
        if not isinstance(step, str) or step not in model.model_fields:
            continue
        inner = model.model_fields[step].annotation
        while inner is not None and not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            inner = next(iter(reversed(get_args(inner))), None)
        model = inner or model
    near = get_close_matches(key, list(model.model_fields), 1)
    return f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(model.model_fields)}"


def text_of(path: Path) -> str:
    """Return the text of a site file. Raises ConfigError where it cannot be read."""
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"Site file {path} is not UTF-8 text. Save it in UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"Cannot read site file {path}: {error.strerror}.") from error


def _load(path: Path, model: type[_File]) -> _File:
    return _parse(text_of(path), str(path), model)


def _parse(text: str, where: str, model: type[_File]) -> _File:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}.") from error
    tree = validate(model, table, where)
    for site in tree.site:
        zone(site.timezone)
    if tree.site:
        tree.assets()
    tree.meters()
    return tree
