"""The APIs of the providers, written from their documents alone."""
