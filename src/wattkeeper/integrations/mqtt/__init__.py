"""MQTT: what plugs, meters and gateways publish to a broker."""
