"""Sessions and transactions: who commits, and when a call is repeated."""
