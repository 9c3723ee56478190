"""Every fault a user can meet, as one small class that takes the facts and writes the sentence.

WattkeeperError
├── ConfigError            a site file or option is wrong
│   ├── MissingExtraError  an optional package is not installed
│   └── UnknownZoneError   a grid provider has no such zone
├── BookError              the book on disk is missing, foreign or of another version
├── JournalError           a journal cannot be written: the disk is full or failing, or another process has it
│   └── JournalFullError   a journal is at the limit it was given
├── BatchError             a batch of readings cannot be taken as a whole
├── ImportFileError        a file as a whole cannot be imported
│   └── EmptyTableError    a table has a header and no rows
├── SourceError            a server or command did not answer as it should
│   └── StatusError        a server answered with a status that is no success
├── UnknownNameError       a job, asset, zone or period that the book does not have
├── SignalGapError         a signal does not reach over the curve it is asked to weigh
├── CurveError             readings that cannot form an energy curve
└── BalanceError           postings that do not add up to the meter
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


class WattkeeperError(Exception):
    """Base of all faults the command line prints as one line."""


class ConfigError(WattkeeperError):
    """A site file or an option is wrong."""


class MissingExtraError(ConfigError):
    """An optional package is needed and not installed."""

    def __init__(self, module: str, package: str, extra: str) -> None:
        super().__init__(f"{module} needs '{package}'. Install with: pip install 'wattkeeper[{extra}]'.")


class UnknownZoneError(ConfigError):
    """A grid provider has no such zone. known: its zones; those that are written alike are named first."""

    def __init__(self, provider: str, zone: str, known: Collection[str]) -> None:
        near = _alike(zone, known)
        words = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(sorted(known)[:8])} …"
        super().__init__(f"{provider} has no zone '{zone}'. {words}")


def _alike(name: str, known: Collection[str]) -> list[str]:
    """Return up to three names that differ from one in case, marks or a few letters."""
    bare = {_bare(k): k for k in sorted(known, reverse=True)}
    return [bare[b] for b in get_close_matches(_bare(name), bare, 3)]


def _bare(name: str) -> str:
    return "".join(c for c in name.upper() if c.isalnum())


class BookError(WattkeeperError):
    """The book on disk is missing, foreign, or written by another version."""


class JournalError(WattkeeperError):
    """A journal cannot be written; what it holds is intact."""


class JournalFullError(JournalError):
    """A journal is at the limit it was given."""


class BatchError(WattkeeperError):
    """A batch of readings cannot be taken as a whole."""


class ImportFileError(WattkeeperError):
    """A file as a whole cannot be imported."""


class EmptyTableError(ImportFileError):
    """A table has a header and no rows."""


class SourceError(WattkeeperError):
    """A server or a command did not answer as it should."""


class StatusError(SourceError):
    """A server answered with a status that is no success."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class UnknownNameError(WattkeeperError):
    """The book has no such job, asset, zone or period."""

    def __init__(self, what: str, name: str, known: list[str], cure: str = "") -> None:
        near = f" Known: {', '.join(known[:8])}{', …' if len(known) > 8 else ''}." if known else ""
        super().__init__(f"No {what} named '{name}' in this book.{near}{' ' + cure if cure else ''}")


class SignalGapError(WattkeeperError):
    """A signal does not reach over the curve it is asked to weigh."""


class CurveError(WattkeeperError):
    """Readings that cannot form an energy curve."""


class BalanceError(WattkeeperError):
    """Postings do not add up to the meter."""
