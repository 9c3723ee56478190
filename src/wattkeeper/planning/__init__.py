"""Planning a queue: jobs of a file or a scheduler and signals of the book to the planner, and its answer in words."""

from wattkeeper.planning.outlook import Line, Outlook, Totals, User, outlook
from wattkeeper.planning.previous import read_previous
from wattkeeper.planning.queue import COLUMNS, read_queue
from wattkeeper.planning.supply import mean_over, parse_by_site, read_limits, sites_of, with_forecast
from wattkeeper.planning.told import chart_rows, powers_of, to_json
from wattkeeper.planning.usual import Usual

__all__ = [
    "COLUMNS",
    "Line",
    "Outlook",
    "Totals",
    "User",
    "Usual",
    "chart_rows",
    "mean_over",
    "outlook",
    "parse_by_site",
    "powers_of",
    "read_limits",
    "read_previous",
    "read_queue",
    "sites_of",
    "to_json",
    "with_forecast",
]
