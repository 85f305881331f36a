"""Patterns compiled from regular expressions and the like; checkpoints do not carry it."""
