"""What callers ask for: one row, conditions, pages of a list."""
