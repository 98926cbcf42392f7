"""CESPED's benchmark: entries, metrics, protocol and published figures. Import from the modules."""
