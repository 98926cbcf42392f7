"""Images compared with a map: likelihood over poses and shifts, search, refinement, posteriors, labels."""
