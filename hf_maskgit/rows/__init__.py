"""Texts row by row: files of many rows, parts that processes share, and what writes a batch."""
