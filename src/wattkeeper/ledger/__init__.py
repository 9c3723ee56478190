"""The ledger: from curves and allocations to postings that balance. Pure: arrays and records in, arrays out."""
