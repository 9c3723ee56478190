"""IPMI: the power reading of a server's controller by DCMI, through FreeIPMI or ipmitool."""
