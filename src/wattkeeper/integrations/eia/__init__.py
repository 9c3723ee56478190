"""The US Energy Information Administration: hourly generation by fuel of a balancing authority."""
