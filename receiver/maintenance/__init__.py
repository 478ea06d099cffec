"""Erases, copies and repairs what is on record."""
