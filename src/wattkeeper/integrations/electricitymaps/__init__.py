"""Electricity Maps: hourly carbon intensity and day-ahead prices of a zone."""
