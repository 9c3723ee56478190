"""What a scheduler printed, read once: told apart by what stands in it, whatever the file is called."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wattkeeper.core.errors import ImportFileError
from wattkeeper.core.roles import Holder, Reject
from wattkeeper.integrations.kubernetes import queue as kubernetes
from wattkeeper.integrations.slurm import listed
from wattkeeper.integrations.slurm import queue as slurm

PRINTS = "squeue --json, sacct --json or kubectl get jobs,pods -A -o json"

_YAML = re.compile(rb"(?:%YAML|---|[A-Za-z]+:)(?:\s|$)")
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Printed:
    """A scheduler's queue. waiting: cells by column of a queue file, and why a job cannot be planned, "" where it can.

    running: what holds GPUs. rejects: lines that cannot be read. notes: sentences on what is not read.
    """

    path: Path
    waiting: list[tuple[dict[str, str], str]]
    running: list[Holder]
    rejects: list[Reject]
    notes: list[str]


def printed(path: Path) -> Printed | None:
    """Return what a scheduler printed, as JSON, YAML or text; None where a file is none of these, as a table is.

    Raises ImportFileError where it is one and cannot be read as a whole.
    """
    try:
        form = _form(path)
        if not form:
            return None
        text = path.read_text("utf-8-sig", "replace" if form == "text" else "strict")
        if form == "text":
            return _of_slurm(path, *listed.of_text(str(path), text))
        told = json.loads(text) if form == "json" else _of_yaml(text)
        if "jobs" in told:
            return _of_slurm(path, listed.of_sacct(told), [])
        return Printed(
            path, list(kubernetes.waiting(told)), list(kubernetes.running(told)), [], kubernetes.unread(told)
        )
    except OSError as error:
        raise ImportFileError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise ImportFileError(f"{path} is not what {PRINTS} prints: {_said(error)}.") from error


def _of_slurm(path: Path, told: dict[str, Any], rejects: list[Reject]) -> Printed:
    return Printed(path, list(slurm.waiting(told)), list(slurm.running(told)), rejects, [])


def _form(path: Path) -> str:
    """Return json, yaml or text for what a scheduler prints, "" for anything else."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    lines = (line for line in head.splitlines() if line.strip() and not line.startswith(b"#"))
    first = next(lines, b"")
    if path.suffix == ".json" or first[:1] in {b"{", b"["}:
        return "json"
    if path.suffix in {".yaml", ".yml"} or _YAML.match(first):
        return "yaml"
    return "text" if listed.is_listed(first.decode("utf-8", "replace")) else ""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML of plain values, in C where it is there. Times stay the text that they are in JSON."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, form) for tag, form in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _of_yaml(text: str) -> dict[str, Any]:
    """Return one document as it is, and the objects of several as one List. Raises ValueError and YAMLError."""
    documents = [one for one in yaml.load_all(text, _Loader) if one is not None]
    for one in documents:
        if "items" in one and "kind" not in one:  # keys are in order: a List that is cut off has lost its kind
            raise ValueError("its list does not end: it is cut off")
    if not documents:
        raise ValueError("it is empty")
    return documents[0] if len(documents) == 1 else {"items": [o for one in documents for o in _objects(one)]}


def _objects(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (one["items"] or []) if "items" in one else [one]


def _said(error: Exception) -> str:
    """Return an error in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', '')}"
    return f"no '{error.args[0]}'" if isinstance(error, KeyError) else " ".join(str(error).split())
