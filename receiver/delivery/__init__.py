"""Everything between a due delivery and its result."""
