"""Text and bodies from outside: decoded, cleaned, shortened and redacted."""
