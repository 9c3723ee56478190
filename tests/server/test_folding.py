"""What the server says of its folds: a thing that stands as it stood is said once."""

from __future__ import annotations

import types

from wattkeeper.server.metrics import Metrics
from wattkeeper.server.serve import _Folding


def told(*doubts, readings=0):
    return {
        "readings": readings,
        "again": 0,
        "aside": 0,
        "refused": [],
        "more": 0,
        "doubts": list(doubts),
        "seconds": 0.1,
    }


def test_what_is_kept_aside_is_said_when_it_changes():
    """Three folds with the same sentence say it once; another number, and the same again after it was gone, are said."""
    heard = []
    fold = types.SimpleNamespace(_metrics=Metrics(lambda: 0), _say=heard.append, _said=set())
    many, more = "7 readings are kept aside", "9 readings are kept aside"
    for words in ((many,), (many,), (many,), (more,), (), (more,)):
        _Folding._note(fold, told(*words, readings=5))

    assert heard == [many, more, more]
