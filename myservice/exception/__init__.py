"""Every error that a caller can get, except those of oslo_db.exception."""

from myservice.exception.base import AdminRequired
from myservice.exception.base import Conflict
from myservice.exception.base import Forbidden
from myservice.exception.base import InvalidInput
from myservice.exception.base import MarkerNotFound
from myservice.exception.base import MyServiceError
from myservice.exception.base import NotFound
from myservice.exception.base import ProjectForbidden
from myservice.exception.base import listed
from myservice.exception.quota import OverQuota
from myservice.exception.quota import QuotaClassExists
from myservice.exception.quota import QuotaClassNotFound
from myservice.exception.quota import QuotaExists
from myservice.exception.quota import QuotaNotFound
from myservice.exception.quota import QuotaResourceUnknown
from myservice.exception.quota import QuotaUsageOverflow
from myservice.exception.quota import ReservationExpired
from myservice.exception.quota import ReservationNotFound
from myservice.exception.resource import ClaimLost
from myservice.exception.resource import ResourceClaimed
from myservice.exception.resource import ResourceConflict
from myservice.exception.resource import ResourceExists
from myservice.exception.resource import ResourceNotClaimed
from myservice.exception.resource import ResourceNotFound
from myservice.exception.resource import ResourcesNotFound
from myservice.exception.resource import ResourceTagNotFound
from myservice.exception.server import DatabaseReadOnly
from myservice.exception.server import EncodingRefused
from myservice.exception.server import MigrationFailed
from myservice.exception.server import MigrationLocked
from myservice.exception.server import NoSpace
from myservice.exception.server import NoTables
from myservice.exception.server import PoolTimeout
from myservice.exception.server import SchemaOutdated
from myservice.exception.server import ServerBusy
from myservice.exception.server import ServerError
from myservice.exception.server import ServerReadOnly
from myservice.exception.server import StatementInterrupted
from myservice.exception.server import ThreadFailed
from myservice.exception.server import UnknownRevision
from myservice.exception.service import HostBinaryNotFound
from myservice.exception.service import ServiceAlive
from myservice.exception.service import ServiceExists
from myservice.exception.service import ServiceIdExists
from myservice.exception.service import ServiceInUse
from myservice.exception.service import ServiceNotFound
from myservice.exception.service import ServiceReplaced
from myservice.exception.service import ServicesNotFound
from myservice.exception.transaction import CannotJoinHere
from myservice.exception.transaction import CommitUnknown
from myservice.exception.transaction import ForkedWhileBusy
from myservice.exception.transaction import LockInAutocommit
from myservice.exception.transaction import NoTransaction
from myservice.exception.transaction import NotTransactionOwner
from myservice.exception.transaction import PartRolledBack
from myservice.exception.transaction import SecondWriteInAutocommit
from myservice.exception.transaction import SessionMisuse
from myservice.exception.transaction import SessionNotBegun
from myservice.exception.transaction import TransactionDoomed
from myservice.exception.transaction import TransactionEnded
from myservice.exception.transaction import TransactionInUse
from myservice.exception.transaction import WouldWaitForItself
from myservice.exception.transaction import WriteInReadOnly

__all__ = [
    'AdminRequired',
    'CannotJoinHere',
    'ClaimLost',
    'CommitUnknown',
    'Conflict',
    'DatabaseReadOnly',
    'EncodingRefused',
    'Forbidden',
    'ForkedWhileBusy',
    'HostBinaryNotFound',
    'InvalidInput',
    'LockInAutocommit',
    'MarkerNotFound',
    'MigrationFailed',
    'MigrationLocked',
    'MyServiceError',
    'NoSpace',
    'NoTables',
    'NoTransaction',
    'NotFound',
    'NotTransactionOwner',
    'OverQuota',
    'PartRolledBack',
    'PoolTimeout',
    'ProjectForbidden',
    'QuotaClassExists',
    'QuotaClassNotFound',
    'QuotaExists',
    'QuotaNotFound',
    'QuotaResourceUnknown',
    'QuotaUsageOverflow',
    'ReservationExpired',
    'ReservationNotFound',
    'ResourceClaimed',
    'ResourceConflict',
    'ResourceExists',
    'ResourceNotClaimed',
    'ResourceNotFound',
    'ResourceTagNotFound',
    'ResourcesNotFound',
    'SchemaOutdated',
    'SecondWriteInAutocommit',
    'ServerBusy',
    'ServerError',
    'ServerReadOnly',
    'ServiceAlive',
    'ServiceExists',
    'ServiceIdExists',
    'ServiceInUse',
    'ServiceNotFound',
    'ServiceReplaced',
    'ServicesNotFound',
    'SessionMisuse',
    'SessionNotBegun',
    'StatementInterrupted',
    'ThreadFailed',
    'TransactionDoomed',
    'TransactionEnded',
    'TransactionInUse',
    'UnknownRevision',
    'WouldWaitForItself',
    'WriteInReadOnly',
    'listed',
]
