"""Bundles: one version of a head and its backbone as a single zip file or folder, to be given to somebody else.

`export` writes one, `bundle` checks one and puts it into a store; what the first writes, the second has checked.
"""
