"""A cluster that runs a history again: first come first served with backfill, under holds and policies.

Pure: arrays and records in, starts and amounts out.
"""
