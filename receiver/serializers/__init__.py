"""The record as JSON, and its schemas."""
