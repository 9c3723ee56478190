"""Planning a queue: jobs of a file or a scheduler and signals of the book to the planner, and its answer in words."""

from wattkeeper.planning.outlook import Line, Outlook, Saved, Totals, User, outlook
from wattkeeper.planning.page import write_figure
from wattkeeper.planning.previous import read_previous
from wattkeeper.planning.queue import COLUMNS, read_queue
from wattkeeper.planning.supply import about, counted_gpus, currency_of, mean_over, read_limits, sites_of, with_forecast
from wattkeeper.planning.told import chart_rows, intensities, powers_of, steps_of, to_json
from wattkeeper.planning.usual import Usual

__all__ = [
    "COLUMNS",
    "Line",
    "Outlook",
    "Saved",
    "Totals",
    "User",
    "Usual",
    "about",
    "chart_rows",
    "counted_gpus",
    "currency_of",
    "intensities",
    "mean_over",
    "outlook",
    "powers_of",
    "read_limits",
    "read_previous",
    "read_queue",
    "sites_of",
    "steps_of",
    "to_json",
    "with_forecast",
    "write_figure",
]
