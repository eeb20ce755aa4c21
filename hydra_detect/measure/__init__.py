"""Measure: how good detections are. Pure functions of values; no torch, no files but the pictures that are drawn on."""
