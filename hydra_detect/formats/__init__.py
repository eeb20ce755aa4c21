"""Formats: Detections and GroundTruth as text, rows and tables, and back.

Each format is a pair with a law, stated in its module: reading what was written gives the detections again. These
are pure functions of values; none opens a file.
"""
