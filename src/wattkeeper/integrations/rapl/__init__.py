"""RAPL: energy counters of CPU packages, memory and platform, from the kernel's powercap files."""
