"""A mail server and a Slack endpoint that keep what they receive, and their pages."""
