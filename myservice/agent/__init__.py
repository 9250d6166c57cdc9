"""The agent: a process that registers as a service, works, and cleans up."""
