"""Shared by the commands of all programs: tables, JSON, progress and shell completion."""
