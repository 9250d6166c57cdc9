"""Marks in the ``info`` of a connection."""

#: of the transaction: one of the four below
STATE = 'myservice.state'
OPEN, COMMITTING, ENDED = 'open', 'committing', 'ended'
#: somebody may use it without SQLAlchemy's Connection, by raw_connection()
UNKNOWN = 'unknown'

#: the operation whose COMMIT is sent
COMMITTER = 'myservice.committer'

#: the lists in which sessions collect the errors of its statements
FAILURES = 'myservice.failures'
