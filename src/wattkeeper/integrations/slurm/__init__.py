"""Slurm: jobs from sacct, and which GPU each held from scontrol or a prolog log."""
