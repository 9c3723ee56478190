"""The planner: from sites, jobs and forecasts to where, when and at which power each job runs, with a lower bound.

Pure: arrays and records in, plans out.
"""
