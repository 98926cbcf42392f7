"""The scatter dock."""
