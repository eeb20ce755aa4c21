"""From a foreign checkpoint to our artifacts and back: read, recognise, split, prove, merge.

Knows torch and torchvision's naming; knows the store only as a place to publish to.
"""
