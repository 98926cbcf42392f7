"""The dock of the particle gallery."""
