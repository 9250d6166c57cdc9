"""What differs between the databases, as SQL: types, clock, lists, words."""
