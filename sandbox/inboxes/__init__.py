"""A mail server and a Slack endpoint that keep the newest messages."""
