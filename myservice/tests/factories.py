"""Short functions to create what tests need."""

import itertools
from typing import Any

from myservice import context
from myservice import db

_numbers = itertools.count(1)


def create_service(**values: Any) -> db.api.ServiceRow:
    """Create a service; values that are not given are made up, and unique."""
    number = next(_numbers)
    defaults = {'host': f'host-{number}', 'binary': 'myservice-agent'}
    return db.api.service_create(
        context.get_admin_context(), defaults | values
    )
