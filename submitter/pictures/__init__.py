"""Checks the pictures of a try-on and prepares them for the request."""
