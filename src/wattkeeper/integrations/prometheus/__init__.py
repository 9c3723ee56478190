"""Prometheus-compatible servers and exposition pages: DCGM, node-exporter, IPMI, Redfish, SNMP, Kepler, CEEMS."""
