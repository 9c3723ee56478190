"""The agent: reads every meter it is told of, on a node or centrally, and loses nothing it has read."""
