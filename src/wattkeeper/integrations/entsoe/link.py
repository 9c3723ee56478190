"""The link to the ENTSO-E Transparency Platform: its table in the site file, and documents as trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wattkeeper.core.errors import MissingExtraError, SourceError

try:
    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    from wattkeeper.core.web import Web, WebConfig, secret
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.entsoe", error.name or "httpx", "entsoe") from error

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

WHERE = "grid.entsoe"
VARIABLES = ("ENTSOE_TOKEN",)
DOCUMENTS = {"A44": "Publication_MarketDocument", "A75": "GL_MarketDocument"}
"""What answers a request for a type of document, where it is no acknowledgement."""
NO_DATA = "999"
"""Reason code of an acknowledgement that says that nothing matches; other faults have it too, with another text."""


class Config(WebConfig):
    """`[grid.entsoe]`."""

    url: str = Field("https://web-api.tp.entsoe.eu", pattern=r"^https?://", description="Address of the service.")
    boundary: Literal["lifecycle", "direct"] = Field("lifecycle", description="Emission factors of the intensity.")
    auction: int = Field(1, ge=1, description="Which day-ahead auction: 1 is the coupled market's, 2 EXAA's.")
    timeout_s: float = Field(300.0, gt=0, description="Longest time one request may take [s].")
    pace_s: float = Field(0.2, ge=0, description="Least time between two requests [s]; 400 a minute are allowed.")


class Link:
    """The platform with its key."""

    def __init__(self, config: Config) -> None:
        (token,) = secret(config, VARIABLES, WHERE)
        self.web = Web("ENTSO-E", config, params={"securityToken": token}, secrets=[token])

    def document(self, params: Mapping[str, str]) -> Element | None:
        """Return the document that answers; None where the platform says that it has nothing. Raises SourceError."""
        answer = self.web.get("api", params, good=(400,))
        self.web.must_be_data(answer)
        try:
            root: Element = ElementTree.fromstring(answer.content)
        except (ElementTree.ParseError, DefusedXmlException) as error:
            raise SourceError(f"ENTSO-E sent no whole XML ({error}). Run it again.") from error
        if name_of(root) == DOCUMENTS[params["documentType"]]:
            return root
        if name_of(root) != "Acknowledgement_MarketDocument":
            raise self.web.strange(f"a document named {name_of(root)}")
        reason = child(root, "Reason")
        code, text = (word(reason, "code"), word(reason, "text")) if reason is not None else ("", "no reason given")
        if code == NO_DATA and "no matching data" in text.lower():
            return None
        raise SourceError(f"ENTSO-E refuses: {self.web.clean(text)[:300]}")


def name_of(element: Element) -> str:
    """Return an element's name without its namespace: versions of the format differ in nothing else."""
    return element.tag.rpartition("}")[2]


def children(element: Element, name: str) -> list[Element]:
    """Return the children of a name."""
    return [c for c in element if name_of(c) == name]


def child(element: Element, name: str) -> Element | None:
    """Return the first child of a name."""
    return next(iter(children(element, name)), None)


def word(element: Element, name: str, default: str | None = None) -> str:
    """Return the text of a child. Raises KeyError where it has none and no default is given."""
    found = child(element, name)
    if found is not None and found.text:
        return found.text.strip()
    if default is None:
        raise KeyError(name)
    return default
