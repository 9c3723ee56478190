"""hwmon: power and energy sensors for which Linux has a driver: ACPI power meters, GPUs, CPUs, rails of a board."""
