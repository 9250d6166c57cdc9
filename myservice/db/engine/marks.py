"""Marks in the ``info`` of a connection."""

#: of the transaction: one of the four below
STATE = 'myservice.state'
OPEN, COMMITTING, ENDED = 'open', 'committing', 'ended'
#: somebody may use it past SQLAlchemy's Connection, by raw_connection()
UNKNOWN = 'unknown'

#: the operation whose COMMIT is sent
COMMITTER = 'myservice.committer'

#: the lists that sessions want the errors of its statements in
FAILURES = 'myservice.failures'
