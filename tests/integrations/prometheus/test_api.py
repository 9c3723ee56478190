"""The API client against a small server of our own: faults, credentials, bounds and the cursor."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.integrations.prometheus.conftest import GPU, NOW, POWER
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.integrations.prometheus.api import REREAD_MS, PrometheusSource
from wattkeeper.integrations.prometheus.link import Access

HOUR = 3_600_000
QUICK = Access(retries=2, backoff_s=0.001)


class Stub:
    """A server with one GPU at 300 W each minute of four hours; `faults` are answered first, one for each request.

    left_end: whether a range includes its left end, as in Prometheus 2, or not, as in Prometheus 3.
    """

    def __init__(self) -> None:
        self.left_end = True
        self.faults: list[tuple[int, str]] = []
        self.extra: dict[str, object] = {}
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                params = {k: v[0] for k, v in parse_qs(url.query).items()}
                stub.asked.append((url.path, params, dict(self.headers)))
                status, text = stub.faults.pop(0) if stub.faults else (200, json.dumps(stub.answer(url.path, params)))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/prefix"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str, params: dict[str, str]) -> dict[str, object]:
        if path.endswith("/values"):
            return {"status": "success", "data": [POWER], **self.extra}
        end_ms = round(float(params["time"]) * 1000)
        span_ms = int(params["query"].split("[")[1].split("ms]")[0])
        times = [
            t
            for t in range(NOW, NOW + 4 * HOUR, 60_000)
            if end_ms - span_ms < t + self.left_end <= end_ms + self.left_end
        ]
        if params["query"].startswith("sum(count_over_time("):
            result = [{"metric": {}, "value": [end_ms / 1000, str(len(times))]}] if times else []
        else:
            series = {"metric": {"__name__": POWER, **GPU}, "values": [[t / 1000, "300"] for t in times]}
            result = [series] if times else []
        return {"status": "success", "data": {"result": result}, **self.extra}

    @property
    def ranges(self) -> list[str]:
        """The range queries that read samples."""
        return [p["query"] for _, p, _ in self.asked if p.get("query", "").startswith(POWER)]


@pytest.fixture
def stub():
    """A running stub."""
    one = Stub()
    yield one
    one.server.shutdown()
    one.server.server_close()


def source(stub, hours=4, **options):
    """Return a source of the first hours."""
    return PrometheusSource(stub.url, NOW, NOW + hours * HOUR, **{"access": QUICK, "chunk_ms": HOUR, **options})


def minutes(*intakes):
    """Return the minutes after NOW of all readings."""
    return [(t - NOW) // 60_000 for i in intakes for t in i.readings["time_ms"]]


@pytest.mark.parametrize("left_end", [True, False])
def test_chunks_side_by_side_hold_every_sample_once(stub, left_end):
    """Four hours, minute by minute, hour by hour: 0 … 239, whether a range includes its left end or not."""
    stub.left_end = left_end
    batches = list(source(stub).read())

    assert 4 == len(batches)
    assert list(range(240)) == minutes(*batches)


def test_a_chunk_that_is_too_much_is_read_in_parts(stub):
    """At most 25 samples at once: 60 a chunk are read in parts of 24 minutes or so, and none is lost or twice."""
    batches = list(source(stub, max_samples=25).read())

    assert max(b.readings.height for b in batches) <= 25
    assert list(range(240)) == minutes(*batches)


def test_a_query_that_fails_does_not_move_the_cursor(stub):
    """The third hour fails for good: the cursor stands at two, and going on from it gives the rest."""
    moved = []
    batches = source(stub, advance=moved.append).read()
    kept = [next(batches), next(batches)]
    stub.faults = [(500, "out of memory")]
    with pytest.raises(SourceError, match="answers with status 500: out of memory"):
        next(batches)

    assert [NOW + HOUR, NOW + 2 * HOUR] == moved
    rest = list(source(stub, cursor_ms=moved[-1], advance=moved.append).read())
    assert set(range(240)) == {*minutes(*kept), *minutes(*rest)}
    assert NOW + 4 * HOUR == moved[-1]


def test_a_batch_that_is_not_kept_does_not_move_the_cursor(stub):
    """The reader stops before it has stored the second batch: only the first counts as kept."""
    moved = []
    batches = source(stub, advance=moved.append).read()
    next(batches)
    next(batches)
    batches.close()

    assert [NOW + HOUR] == moved


def test_the_last_minutes_before_the_cursor_are_read_again(stub):
    """A scrape is stored late: from two hours, the first minute read is 115."""
    batches = list(source(stub, cursor_ms=NOW + 2 * HOUR).read())

    assert REREAD_MS == 5 * 60_000
    assert list(range(115, 240)) == minutes(*batches)


def test_an_empty_span_moves_the_cursor(stub):
    """Before there were samples there is nothing to keep, and it is not asked for again."""
    moved = []
    early = PrometheusSource(stub.url, NOW - 9 * HOUR, NOW - 8 * HOUR, access=QUICK, advance=moved.append)

    assert [] == list(early.read())
    assert NOW - 8 * HOUR == moved[-1]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_passing_fault_is_tried_again(stub, status):
    """Two bad answers, then a good one: nobody notices."""
    stub.faults = [(status, "later")] * 2

    assert list(range(60)) == minutes(*source(stub, 1).read())


def test_a_fault_that_stays_is_told(stub):
    """Two retries are three bad answers."""
    stub.faults = [(503, "down for maintenance")] * 3
    with pytest.raises(SourceError, match=r"/prefix/api/v1/.* answers with status 503: down for maintenance"):
        list(source(stub).read())


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_told(stub, status):
    """The cure is in the sentence, and what was sent is not."""
    stub.faults = [(status, "")]
    with pytest.raises(SourceError, match=r"refuses us \(status 40[13]\). Check token, user and password.") as caught:
        list(source(stub, access=Access(token="s3cret")).read())

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("access", "header"),
    [
        (Access(token="abc"), "Bearer abc"),
        (Access(user="u", password="p"), "Basic dTpw"),  # base64 of u:p
    ],
)
def test_credentials_are_sent(stub, access, header):
    """Bearer token or basic authentication, on each request."""
    list(source(stub, 1, access=access).read())

    assert {header} == {headers.get("Authorization") for _, _, headers in stub.asked}


def test_secrets_are_not_shown():
    """A log or a traceback may hold the settings, but neither token nor password."""
    shown = repr(Access(token="s3cret", user="u", password="hidden"))

    assert ("s3cret" in shown, "hidden" in shown) == (False, False)


def test_matchers_are_in_every_query(stub):
    """One cluster of several: names, counts and samples are all asked for with the matcher."""
    chosen = source(stub, 1, matchers='cluster="a"')
    list(chosen.read())

    assert all('cluster="a"' in (p.get("query") or p["match[]"]) for _, p, _ in stub.asked)
    assert f'prometheus {stub.url} cluster="a"' == chosen.name


@pytest.mark.parametrize(
    ("extra", "told"), [({"warnings": ["store 2 is away"]}, "store 2 is away"), ({"isPartial": True}, "partial")]
)
def test_part_of_the_data_is_not_taken_for_all_of_it(stub, extra, told):
    """A server that says that some of its stores did not answer is a failed query: the cursor stays."""
    stub.extra = extra
    moved = []
    with pytest.raises(SourceError, match=f"has only part of the data from 2025-10-09T09:00:00Z on: {told}"):
        list(source(stub, advance=moved.append).read())

    assert [] == moved


def test_a_page_that_is_not_the_api_is_told(stub):
    """A login page with status 200 is no empty answer."""
    stub.faults = [(200, "<html>login</html>")]
    with pytest.raises(SourceError, match="does not speak the Prometheus API: '<html>login"):
        list(source(stub).read())


def test_a_server_that_is_not_there_is_told():
    """A refused connection is one line."""
    gone = PrometheusSource("http://127.0.0.1:9", NOW, NOW + HOUR, access=Access(retries=0))
    with pytest.raises(SourceError, match=r"does not answer: .*refused.*\. Check address and network"):
        list(gone.read())


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_told(tmp_path, stub, text):
    """A path that is wrong, or a file that is no PEM."""
    pem = tmp_path / "ca.pem"
    if text:
        Path(pem).write_text(text)
    with pytest.raises(ConfigError, match=r"Cannot read the certificates in .*ca.pem: .* Name a PEM file."):
        list(source(stub, access=Access(ca_file=pem)).read())
