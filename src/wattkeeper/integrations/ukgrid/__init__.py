"""The Carbon Intensity API of Great Britain's system operator: half-hourly intensity, without a key."""
