"""WattTime, against a fake of its service."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace

import pytest

from tests.integrations import services
from tests.integrations.services import HOUR, KEY, NOW, FakeService
from wattkeeper.core.errors import ConfigError, SourceError, UnknownZoneError
from wattkeeper.integrations.watttime import link
from wattkeeper.integrations.watttime.signal import provider


@pytest.fixture
def service(monkeypatch):
    """A fake that has all points."""
    monkeypatch.setenv("WATTTIME_USER", "someone")
    monkeypatch.setenv("WATTTIME_PASSWORD", KEY)
    with FakeService(services.watttime) as one:
        yield one


def make(service, **config):
    return service.keep(provider("CAISO_NORTH", "intensity", {"url": service.url, "pace_s": 0, "retries": 0, **config}))


def body(value=1000, **meta):
    """Return an answer with one point."""
    told = json.loads(services.watttime("", {"start": "2026-10-01", "end": "2026-10-01", "region": "CAISO_NORTH",
                                             "signal_type": "co2_moer"}, {}))  # fmt: skip
    told["data"] = [{"point_time": "2026-10-01T00:00:00+00:00", "value": value}]
    told["meta"] |= meta
    return json.dumps(told)


LOGIN = (200, {}, json.dumps({"token": "t0k3n"}))


def test_pounds_become_grams(service):
    """1000 lb/MWh is 453.59237 g/kWh, for five minutes."""
    service.faults = [LOGIN, (200, {}, body())]

    assert make(service).read(NOW, NOW + HOUR).rows == [(NOW, NOW + 300_000, pytest.approx(453.59237, rel=1e-15))]


def test_it_logs_in_once_and_shows_its_token(service):
    """User and password go to /login alone; the reads carry the token."""
    one = make(service)
    one.read(NOW, NOW + HOUR)
    one.read(NOW + HOUR, NOW + 2 * HOUR)
    paths = [path for path, _, _ in service.asked]

    assert paths == ["/login", "/v3/historical", "/v3/historical"]
    assert base64.b64decode(service.asked[0][2]["authorization"].split()[1]).decode() == f"someone:{KEY}"
    assert service.asked[2][2]["authorization"] == "Bearer t0k3n"


def test_a_log_in_is_renewed(service, monkeypatch):
    """A token lasts half an hour: after twenty minutes a new one is asked for, however few requests there were."""
    now = [1000.0]
    monkeypatch.setattr(link, "time", SimpleNamespace(monotonic=lambda: now[0]))
    one = make(service)
    one.read(NOW, NOW + HOUR)
    now[0] += 1199
    one.read(NOW, NOW + HOUR)
    assert [path for path, _, _ in service.asked].count("/login") == 1
    now[0] += 2
    one.read(NOW, NOW + HOUR)

    assert [path for path, _, _ in service.asked].count("/login") == 2


def test_average_and_marginal_are_two_signals(service):
    """They are never mixed: the id and the method differ."""
    marginal, average = make(service), make(service, signal_type="co2_aoer")

    assert (marginal.info.id, marginal.info.method) == ("intensity:CAISO_NORTH:watttime:marginal", "marginal, direct")
    assert (average.info.id, average.info.method) == ("intensity:CAISO_NORTH:watttime:average", "average, direct")


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        ({"units": "percentile"}, "asked for units 'lbs_co2_per_mwh' and answers with 'percentile'"),
        ({"region": "PJM"}, "asked for region 'CAISO_NORTH' and answers with 'PJM'"),
        ({"signal_type": "co2_aoer"}, "asked for signal_type 'co2_moer' and answers with 'co2_aoer'"),
    ],
)
def test_an_answer_to_another_question_is_refused(service, meta, told):
    """Units, region and rate must be those asked for."""
    service.faults = [LOGIN, (200, {}, body(**meta))]
    with pytest.raises(SourceError, match=told):
        make(service).read(NOW, NOW + HOUR)


def test_a_model_that_changes_midway_is_told(service):
    """Values of two models are not one signal."""
    service.faults = [LOGIN, (200, {}, body()), (200, {}, body(model={"date": "2026-09-01"}))]
    one = make(service)
    one.read(NOW, NOW + HOUR)

    assert one.info.version == "v3, model 2026-03-01"
    with pytest.raises(SourceError, match="changed its model to 2026-09-01"):
        one.read(NOW, NOW + HOUR)


def test_a_missing_value_stays_a_gap(service):
    """Null has no row."""
    service.faults = [LOGIN, (200, {}, body(value=None))]

    assert make(service).read(NOW, NOW + HOUR).rows == []


def test_prices_are_refused(service):
    """It has none."""
    with pytest.raises(ConfigError, match="WattTime publishes intensity, no price"):
        provider("CAISO_NORTH", "price", {"url": service.url})


def test_a_region_that_is_none_is_told_with_those_written_alike(service):
    """The service says 403 for a region that the account has not; its list says which it has."""
    service.faults = [LOGIN, (403, {}, json.dumps({"error": "no access"}))]
    one = service.keep(provider("caiso-north", "intensity", {"url": service.url, "pace_s": 0, "retries": 0}))
    with pytest.raises(UnknownZoneError, match=r"this account, has no zone 'caiso-north'. Did you mean CAISO_NORTH"):
        one.read(NOW, NOW + HOUR)


def test_an_older_model_can_be_kept(service):
    """model_date is asked for and checked; the signal's version names it."""
    one = make(service, model_date="2025-03-01")
    one.read(NOW, NOW + HOUR)

    assert service.asked[1][1]["model_date"] == "2025-03-01"
    assert one.info.version == "v3, model 2025-03-01"
    service.faults = [(200, {}, body())]
    with pytest.raises(SourceError, match="changed its model to 2026-03-01"):
        one.read(NOW, NOW + HOUR)
    service.faults = [LOGIN, (200, {}, body())]
    with pytest.raises(SourceError, match="asked for model_date '2025-03-01' and answers with '2026-03-01'"):
        make(service, model_date="2025-03-01").read(NOW, NOW + HOUR)
