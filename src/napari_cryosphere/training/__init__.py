"""Training the pose network: image sources, the loop, its reports. Import from the modules."""
