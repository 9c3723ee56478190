"""Modbus TCP: meters of panels, busbars and sites, one by one or behind a gateway."""
