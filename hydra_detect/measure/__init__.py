"""Measure: how good detections are. Pure functions of values; no torch, no files."""
