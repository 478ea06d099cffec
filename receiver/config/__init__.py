"""The settings and the hooks file: how they are read and checked, and which secrets they hold."""
