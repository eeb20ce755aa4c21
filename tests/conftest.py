"""What all tests share: the Hypothesis profile."""

from hypothesis import settings

# No deadline: a busy machine is no failing test. Examples vary from run to run, so that runs add up.
settings.register_profile("ci", deadline=None, derandomize=False, max_examples=50)
settings.load_profile("ci")
