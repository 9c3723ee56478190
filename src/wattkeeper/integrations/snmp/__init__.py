"""SNMP: rack PDUs, UPSes and branch meters, read by profiles: one file for each family of models."""
