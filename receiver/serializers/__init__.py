"""Converts the record to JSON, and describes that JSON with schemas."""
