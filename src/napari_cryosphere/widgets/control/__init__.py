"""What the docks do, without Qt: controllers, long work, session files."""
