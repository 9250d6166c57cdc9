"""Connections: engines, pools, the wire, and the meaning of errors."""
