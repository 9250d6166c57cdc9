"""Quotas: limits, usages and reservations."""
