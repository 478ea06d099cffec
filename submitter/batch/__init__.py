"""Submits the rows of a file, several at a time for each account."""
