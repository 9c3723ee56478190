"""Two agents that report one meter: told once a day, and kept for `check`."""

from __future__ import annotations

from tests.books.small import SITE, START, node
from wattkeeper import loop
from wattkeeper.core.assets import Meter
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.live import Sample
from wattkeeper.lake.book import Book
from wattkeeper.lake.fold import journal_root
from wattkeeper.lake.journal import Journal

GPU = Meter("n1/gpu0:nvml:energy_counter", "n1/gpu0", "energy_counter", "nvml")
DAY = 86_400_000
NOW = START + DAY


def journaled(book, writer, *batches):
    journal = Journal(journal_root(book.root), writer)
    journal.append_many([encode(b) for b in batches])
    journal.close()


def batch(agent, number, at_ms=START, meter=GPU):
    samples = [Sample(meter.id, at_ms + i * 1000, (at_ms - START + i * 1000) * 100) for i in range(10)]
    return Batch(f"{agent}/run/{number}", samples, [], [meter])


SAID = (
    "Agents 'n1' and 'rack' both report meter 'n1/gpu0:nvml:energy_counter' at the same time. Each joule is counted once; "
    "if their devices are two, give them names of their own, else one of the agents is enough."
)


def test_two_agents_of_one_meter_at_one_time_are_told_once_a_day(tmp_path):
    """From whatever journals they come; the books have 9 s at 100 W once."""
    book = Book.create(tmp_path / "b", SITE + node("n1", 1))
    journaled(book, "server", batch("n1", 0))
    journaled(book, "local", batch("rack", 0, START + 300))
    assert loop.fold(book, NOW).doubts == [SAID]
    journaled(book, "server", batch("n1", 1, START + 10_000), batch("rack", 1, START + 10_300))
    assert loop.fold(book, NOW + 60_000).doubts == []
    assert loop.reported_twice(book.state, NOW + DAY) == [SAID]
    assert loop.reported_twice(book.state, NOW + 2 * DAY) == []
    journaled(book, "server", batch("n1", 2, START + 20_000), batch("rack", 2, START + 20_300))
    assert loop.fold(book, NOW + 3 * DAY).doubts == [SAID]
    loop.attribute(book)
    assert book.postings.scan().collect()["energy_mj"].sum() == 29_300 * 100


def test_one_after_the_other_or_without_a_name_is_no_double(tmp_path):
    """A second run of one agent, another agent later, batches without an id, and two agents of two meters."""
    other = Meter("n1:ipmi", "n1", "power", "ipmi")
    book = Book.create(tmp_path / "b", SITE + node("n1", 1))
    again = batch("n1", 0)
    unnamed = Batch("", batch("x", 0).samples, [], [GPU])
    journaled(book, "server", batch("n1", 0), Batch("n1/again/0", again.samples), batch("n2", 0, START + 60_000),
              batch("n3", 0, meter=other), unnamed)  # fmt: skip
    assert loop.fold(book, NOW).doubts == []
