"""The dock of one particle's distribution on a sphere in 3D."""
