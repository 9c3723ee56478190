"""Kueue: Workloads of a Kubernetes cluster that wait for quota."""
