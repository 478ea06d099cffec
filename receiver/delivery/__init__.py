"""Makes deliveries: from a due delivery to its recorded outcome."""
