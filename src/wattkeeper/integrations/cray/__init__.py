"""HPE Cray pm_counters: joules and watts of a node and its parts, from files the node controller writes."""
