"""The components of a store, in SQL that both SQLite and PostgreSQL accept."""
