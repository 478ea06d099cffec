"""Erasing, copying and repairing the record."""
