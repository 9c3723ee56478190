"""Forecasts of an hourly series from its own past: arrays in, arrays out.

A series is (n,) float64, one value an hour, NaN where none is known; a forecast is made from a part of it that ends at
the origin, so nothing after the origin can reach it.
"""
