"""Rotations and functions on SO(3): conventions, point groups, grids, Wigner transforms, pose distributions.

Import from the modules; nothing is loaded here, so that what needs no torch does not pay for it.
"""
