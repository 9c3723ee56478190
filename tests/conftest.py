"""What holds for all tests: speed is measured in benchmarks, so no example of a property has to be quick."""

from hypothesis import settings

settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")
