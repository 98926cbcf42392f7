"""CESPED as jobs: its entries, the protocol over an entry, the refinement of predictions."""
