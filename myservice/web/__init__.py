"""Adapters for web frameworks; the rest of myservice imports none of them."""
