"""Footprint: what energy and hardware cost the climate, beyond what a signal says hour by hour."""
