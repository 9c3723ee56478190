"""ENTSO-E Transparency Platform: day-ahead prices, and intensity from generation per type."""
