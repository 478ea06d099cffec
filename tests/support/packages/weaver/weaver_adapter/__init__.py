"""Adds the provider Weaver, which does not exist, to Callback Receiver."""
