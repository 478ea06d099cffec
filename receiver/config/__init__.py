"""Reads and checks the settings and the hooks file, and collects their secrets."""
