"""The database layer; service code imports ``db.api`` and nothing else."""

from myservice.db import api

__all__ = ['api']
