"""Every request to a URL from outside goes through this package, which refuses unsafe ones."""
