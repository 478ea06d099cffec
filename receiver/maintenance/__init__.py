"""Erases, copies and repairs the record."""
