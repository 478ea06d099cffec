"""What the commands of all programs use: tables, JSON, progress and shell completion."""
