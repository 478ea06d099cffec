"""The verbs of every store that speaks SQL, in statements that SQLite and PostgreSQL both take."""
