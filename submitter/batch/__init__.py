"""Submits the rows of a file."""
