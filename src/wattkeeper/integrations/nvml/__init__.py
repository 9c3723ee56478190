"""NVML: energy, power and utilisation of NVIDIA GPUs, from their driver."""
