"""Networks built from records: torch, but no disk and no versions.

A network is built on torch's meta device, without memory or random numbers, and then takes its weights strictly.
"""
