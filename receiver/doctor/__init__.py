"""Looks at an installation from all sides, and says of each what is wrong and what to do."""
