"""From labelled samples to a promoted version: train, measure, calibrate, decide.

Each module reads like its sentence; the details of a step live in the rooms below.
"""
