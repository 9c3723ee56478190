"""Redfish: servers' controllers, power shelves and rack PDUs, read over HTTPS."""
