"""Fake services: local HTTP servers that answer in the formats that grid providers publish. They cannot run here."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from wattkeeper.core.spans import Publisher

KEY = "s3cr3t-k3y"
HOUR = 3_600_000
NOW = 1_790_812_800_000  # 2026-10-01T00:00Z
Answer = tuple[int, dict[str, str], str]


class FakeService:
    """A server on this machine. faults are answered first, one a request; asked holds (path, params, headers)."""

    def __init__(self, answer: Callable[[str, dict[str, str], dict[str, str]], str]) -> None:
        self.faults: list[Answer] = []
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.kept: list[Publisher] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                params = {k: v[0] for k, v in parse_qs(url.query).items()}
                headers = {k.lower(): v for k, v in self.headers.items()}
                service.asked.append((url.path, params, headers))
                fault = service.faults.pop(0) if service.faults else None
                status, more, text = fault or (200, {}, answer(url.path, params, headers))
                body = text.encode()
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> FakeService:
        return self

    def __exit__(self, *_fault: object) -> None:
        for publisher in self.kept:
            publisher.close()
        self.server.shutdown()
        self.server.server_close()

    def keep(self, publisher: Publisher) -> Publisher:
        """Return a publisher that is closed with the service."""
        self.kept.append(publisher)
        return publisher


def moment(time_ms: int, form: str = "%Y-%m-%dT%H:%M:%S.000Z") -> str:
    """Return an instant in a format."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).strftime(form)


def ms(text: str, form: str | None = None) -> int:
    """Return an instant from a text."""
    when = datetime.fromisoformat(text) if form is None else datetime.strptime(text, form).replace(tzinfo=UTC)
    return int(when.timestamp() * 1000)


def hours(start_ms: int, end_ms: int, step_ms: int = HOUR) -> range:
    """Return the starts of the steps in a span."""
    return range(-(-start_ms // step_ms) * step_ms, end_ms, step_ms)


def value_at(time_ms: int) -> float:
    """Return the intensity that all fakes publish: 100 g at midnight UTC and 10 g more each hour of the day."""
    return 100.0 + 10 * (time_ms // HOUR % 24)


def electricitymaps(path: str, params: dict[str, str], _headers: dict[str, str]) -> str:
    """/v4/…/past-range, hours from start on and the end left out, and /v4/zones; as clients of 2026 read it."""
    if path == "/v4/zones":
        names = ("DE", "DK-DK1", "DK-DK2", "US-CAL-CISO")
        return json.dumps({n: {"zoneKey": n, "zoneName": n, "countryName": n[:2]} for n in names})
    rows = []
    for t in hours(ms(params["start"]), ms(params["end"])):
        row = {"zone": params["zone"], "datetime": moment(t), "updatedAt": moment(t)}
        if "price" in path:
            row |= {"value": value_at(t), "unit": "EUR/MWh", "source": "nordpool.com"}
        else:
            kind = params["emissionFactorType"]
            row |= {
                "carbonIntensity": value_at(t),
                "emissionFactorType": kind,
                "flowTraced": params["flowTraced"] == "true",
                "isEstimated": False,
                "estimationMethod": None,
            }
        rows.append(row)
    return json.dumps({"zone": params["zone"], "temporalGranularity": "hourly", "data": rows})


def watttime(path: str, params: dict[str, str], _headers: dict[str, str]) -> str:
    """/login, /v3/my-access and /v3/historical: five minutes a point, the end included."""
    if path == "/login":
        return json.dumps({"token": "t0k3n"})
    if path == "/v3/my-access":
        regions = [{"region": n, "region_full_name": n, "endpoints": []} for n in ("CAISO_NORTH", "PJM_DC")]
        return json.dumps({"signal_types": [{"signal_type": "co2_moer", "regions": regions}]})
    points = [
        {
            "point_time": moment(t, "%Y-%m-%dT%H:%M:%S+00:00"),
            "value": value_at(t) / 0.45359237,
            "last_updated": moment(t),
        }
        for t in hours(ms(params["start"]), ms(params["end"]) + 1, 300_000)
    ]
    meta = {
        "data_point_period_seconds": 300, "region": params["region"], "warnings": [],
        "signal_type": params["signal_type"], "model": {"date": params.get("model_date", "2026-03-01")},
        "units": "lbs_co2_per_mwh",
    }  # fmt: skip
    return json.dumps({"data": points, "meta": meta})


def ukgrid(path: str, _params: dict[str, str], _headers: dict[str, str]) -> str:
    """/intensity/FROM/TO; the half-hour before FROM comes along, as it does there."""
    _, _, start, end = path.split("/")
    form = "%Y-%m-%dT%H:%MZ"
    rows = [
        {
            "from": moment(t, form), "to": moment(t + HOUR // 2, form),
            "intensity": {"forecast": 1, "actual": round(value_at(t)), "index": "low"},
        }
        for t in hours(ms(start, form) - HOUR // 2, ms(end, form), HOUR // 2)
    ]  # fmt: skip
    return json.dumps({"data": rows})


def mix_at(time_ms: int) -> dict[str, float]:
    """Return MW of gas and solar whose life-cycle intensity (490 and 45) is value_at, and some pumped storage."""
    gas = (value_at(time_ms) - 45) / (490 - 45) * 10_000
    return {"gas": gas, "solar": 10_000 - gas, "storage": 500.0}


EIA_CODES = {"gas": "NG", "solar": "SUN", "storage": "PS"}
ENTSOE_CODES = {"gas": "B04", "solar": "B16", "storage": "B10"}


def eia(path: str, params: dict[str, str], _headers: dict[str, str]) -> str:
    """/v2/electricity/rto/fuel-type-data/data/: strings, pages, periods named by the hour's end, the key echoed.

    A respondent that is none has no rows; facet/respondent/ lists those there are.
    """
    if path.endswith("/facet/respondent/"):
        facets = [{"id": n, "name": n} for n in ("CISO", "ERCO", "PJM", "SWPP", "SWPW")]
        return json.dumps({"response": {"totalFacets": len(facets), "facets": facets}, "apiVersion": "2.1.10"})
    form = "%Y-%m-%dT%H"
    rows = [
        {
            "period": moment(t, form), "respondent": params["facets[respondent][]"], "respondent-name": "a name",
            "fueltype": EIA_CODES[fuel], "type-name": fuel.capitalize(),
            "value": repr(mw if fuel != "storage" else -mw), "value-units": "megawatthours",
        }
        for t in hours(ms(params["start"], form), ms(params["end"], form) + 1)
        for fuel, mw in mix_at(t - HOUR).items()
        if params["facets[respondent][]"] in ("CISO", "ERCO", "PJM")
    ]  # fmt: skip
    first = int(params["offset"])
    page = rows[first : first + int(params["length"])]
    return json.dumps(
        {
            "response": {
                "total": str(len(rows)),
                "dateFormat": 'YYYY-MM-DD"T"HH24',
                "frequency": "hourly",
                "data": page,
            },
            "request": {"params": params},
            "apiVersion": "2.1.10",
        }
    )


def entsoe(_path: str, params: dict[str, str], _headers: dict[str, str]) -> str:
    """/api: A44 as PT60M of auction 1, A75 as PT15M, with what plants consume beside what they generate."""
    start_ms, end_ms = (ms(params[n], "%Y%m%d%H%M") for n in ("periodStart", "periodEnd"))
    if params["documentType"] == "A44":
        points = [(i + 1, value_at(t)) for i, t in enumerate(hours(start_ms, end_ms))]
        return price_document([price_series(1, period(start_ms, end_ms, "PT60M", points, "price.amount"))])
    series = []
    for fuel, code in ENTSOE_CODES.items():
        points = [(i + 1, mix_at(t)[fuel]) for i, t in enumerate(hours(start_ms, end_ms, HOUR // 4))]
        for domain in ("inBiddingZone_Domain", "outBiddingZone_Domain"):
            series.append(type_series(code, period(start_ms, end_ms, "PT15M", points, "quantity"), domain=domain))
    return generation_document(series)


def period(start_ms: int, end_ms: int, resolution: str, points: list[tuple[int, float]], name: str) -> str:
    """Return a Period."""
    form = "%Y-%m-%dT%H:%MZ"
    told = "".join(f"<Point><position>{n}</position><{name}>{v!r}</{name}></Point>" for n, v in points)
    interval = f"<start>{moment(start_ms, form)}</start><end>{moment(end_ms, form)}</end>"
    return f"<Period><timeInterval>{interval}</timeInterval><resolution>{resolution}</resolution>{told}</Period>"


def price_series(auction: int, body: str, *, curve: str = "A03", unit: str = "MWH", currency: str = "EUR") -> str:
    """Return a TimeSeries of prices."""
    place = f"<classificationSequence_AttributeInstanceComponent.position>{auction}"
    place += "</classificationSequence_AttributeInstanceComponent.position>"
    units = (
        f"<currency_Unit.name>{currency}</currency_Unit.name><price_Measure_Unit.name>{unit}</price_Measure_Unit.name>"
    )
    return f"<TimeSeries><mRID>{auction}</mRID>{place}{units}<curveType>{curve}</curveType>{body}</TimeSeries>"


def type_series(
    code: str, body: str, *, unit: str = "MAW", curve: str = "A01", domain: str = "inBiddingZone_Domain"
) -> str:
    """Return a TimeSeries of generation of a type."""
    where = f'<{domain}.mRID codingScheme="A01">10Y1001A1001A83F</{domain}.mRID>'
    units = f"<quantity_Measure_Unit.name>{unit}</quantity_Measure_Unit.name><curveType>{curve}</curveType>"
    return f"<TimeSeries>{where}{units}<MktPSRType><psrType>{code}</psrType></MktPSRType>{body}</TimeSeries>"


def price_document(series: list[str]) -> str:
    """Return a document of prices."""
    space = "urn:iec62325.351:tc57wg16:451-3:publicationdocument:7:3"
    return f'<?xml version="1.0"?><Publication_MarketDocument xmlns="{space}">{"".join(series)}</Publication_MarketDocument>'


def generation_document(series: list[str]) -> str:
    """Return a document of generation."""
    space = "urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0"
    return f'<?xml version="1.0"?><GL_MarketDocument xmlns="{space}">{"".join(series)}</GL_MarketDocument>'


def acknowledgement(text: str) -> str:
    """Return an answer that says no."""
    space = "urn:iec62325.351:tc57wg16:451-1:acknowledgementdocument:7:0"
    reason = f"<Reason><code>999</code><text>{text}</text></Reason>"
    return f'<?xml version="1.0"?><Acknowledgement_MarketDocument xmlns="{space}">{reason}</Acknowledgement_MarketDocument>'
