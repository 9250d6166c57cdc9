"""The differences of the databases in SQL: types, clock, lists, words."""
