"""The forward model from map to image, and images prepared for a network. Import from the modules."""
