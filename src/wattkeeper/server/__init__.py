"""The receiving end of live measurement: HTTP in, acknowledged once on disk, folded into the book behind."""
