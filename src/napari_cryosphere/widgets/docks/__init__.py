"""The docks of napari's window."""
