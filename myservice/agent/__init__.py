"""The agent: a process that is a service, works, and cleans up."""
