"""The nouns: assets, meters, energy curves, signals, jobs, postings. Imports nothing of ours."""
