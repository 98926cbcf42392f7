"""What the docks share: style, plots, threads, and their hold on the viewer's controller."""
