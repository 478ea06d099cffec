"""Settings, the hooks file, and what is derived from them."""
