"""What napari shows: readers, sample data, the dock, the sphere of poses. Nothing else imports napari or Qt.

Import from the modules; nothing is loaded here.
"""
