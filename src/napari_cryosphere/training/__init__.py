"""Training the pose network: where images come from, the loop, and what it reports.

Import from the modules.
"""
