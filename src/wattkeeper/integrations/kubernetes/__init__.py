"""Kubernetes: Jobs, JobSets, Pods and Kueue's Workloads that wait for GPUs or hold them."""
