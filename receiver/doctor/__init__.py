"""Checks an installation, and reports for each part what is wrong and what to do."""
