"""Integrations: one folder for each thing Wattkeeper talks to."""
