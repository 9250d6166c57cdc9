"""Connections: engines, pools, what is sent, and what errors mean."""
