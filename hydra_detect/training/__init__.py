"""Learning a new head on a frozen backbone: features, views, targets, losses, one loop.

Knows networks and samples; knows neither the store nor versions.
"""
