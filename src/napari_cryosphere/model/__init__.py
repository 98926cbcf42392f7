"""The pose network: from an image to a distribution over SO(3). Import from the modules."""
