"""BACnet/IP: meters that building management has already, and its own values."""
