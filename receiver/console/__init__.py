"""What all commands share: tables, colours and shell completion."""
