"""The dock that reconstructs and compares maps, and the plot of their FSC."""
