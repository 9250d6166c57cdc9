"""The ways to do a job that calls.py compares, one module each."""
