"""How jobs run: batches, journals, ranks, reading ahead, memory, stages and locks."""
