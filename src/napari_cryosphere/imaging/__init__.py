"""The forward model from map to image, and the preparation of images for a network.

Import from the modules.
"""
