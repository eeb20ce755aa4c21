"""Data: labelled samples from files and back, and who may use which of them for what.

Reads label files and pictures, deals samples to roles, and knows no network and no store.
"""
