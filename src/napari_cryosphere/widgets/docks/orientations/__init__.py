"""The dock of all view directions of a data set."""
