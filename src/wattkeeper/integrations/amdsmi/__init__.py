"""AMD SMI: energy counters, power and utilisation of AMD GPUs, through ROCm's own library."""
