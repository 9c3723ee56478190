"""The lake: readings, signals, jobs and ledger as Delta tables in one directory, the book."""
