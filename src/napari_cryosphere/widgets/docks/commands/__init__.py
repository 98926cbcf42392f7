"""The dock that runs any command, by a form of its options."""
