"""The database layer of a control plane: services, quotas, resources."""
