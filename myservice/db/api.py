"""The public API of the database layer: a table of contents, no logic.

Service code imports this module and no other of ``myservice.db``::

    from myservice import context, db

    ctx = context.get_admin_context()
    service = db.api.service_register(ctx, {'host': 'h1', 'binary': 'agent'})

Each function is one transaction, unless it is called inside of
``with db.api.transaction(ctx):``, which makes one of all the calls in it.
What is public is named here by hand: nothing is found by reflection.
"""

from myservice.db.engine.engines import Engines
from myservice.db.engine.engines import configure
from myservice.db.engine.engines import dispose
from myservice.db.engine.engines import get_engine
from myservice.db.engine.errors import DATABASE_ERRORS
from myservice.db.liveness import ServiceRow
from myservice.db.maintenance import purge_operations
from myservice.db.models import QuotaClassRow
from myservice.db.models import QuotaRow
from myservice.db.models import ResourceRow
from myservice.db.query.conditions import Contains
from myservice.db.query.conditions import Not
from myservice.db.query.conditions import Range
from myservice.db.query.conditions import StartsWith
from myservice.db.quotas.counters import PROJECT
from myservice.db.quotas.limits import quota_counter_register
from myservice.db.quotas.limits import quota_get_defaults
from myservice.db.quotas.quota import quota_create
from myservice.db.quotas.quota import quota_destroy
from myservice.db.quotas.quota import quota_get
from myservice.db.quotas.quota import quota_get_all
from myservice.db.quotas.quota import quota_set
from myservice.db.quotas.quota import quota_update
from myservice.db.quotas.quota_class import quota_class_create
from myservice.db.quotas.quota_class import quota_class_destroy
from myservice.db.quotas.quota_class import quota_class_get
from myservice.db.quotas.quota_class import quota_class_get_all
from myservice.db.quotas.quota_class import quota_class_set
from myservice.db.quotas.quota_class import quota_class_update
from myservice.db.quotas.reservation import quota_reserve
from myservice.db.quotas.reservation import reservation_commit
from myservice.db.quotas.reservation import reservation_expire
from myservice.db.quotas.reservation import reservation_purge
from myservice.db.quotas.reservation import reservation_rollback
from myservice.db.quotas.usage import quota_usage_check
from myservice.db.quotas.usage import quota_usage_get_all
from myservice.db.quotas.usage import quota_usage_get_projects
from myservice.db.quotas.usage import quota_usage_get_uncounted
from myservice.db.quotas.usage import quota_usage_sync
from myservice.db.resources.claim import claims_take_over
from myservice.db.resources.claim import resource_claim
from myservice.db.resources.claim import resource_claim_hand_over
from myservice.db.resources.claim import resource_claim_next
from myservice.db.resources.claim import resource_claim_renew
from myservice.db.resources.claim import resource_release
from myservice.db.resources.count import resource_count
from myservice.db.resources.fencing import Claim
from myservice.db.resources.metadata import resource_metadata_delete
from myservice.db.resources.metadata import resource_metadata_get
from myservice.db.resources.metadata import resource_metadata_get_many
from myservice.db.resources.metadata import resource_metadata_set
from myservice.db.resources.metadata import resource_metadata_update
from myservice.db.resources.resource import resource_create
from myservice.db.resources.resource import resource_destroy
from myservice.db.resources.resource import resource_get
from myservice.db.resources.resource import resource_get_all
from myservice.db.resources.resource import resource_get_many
from myservice.db.resources.resource import resource_update
from myservice.db.resources.tags import resource_tag_add
from myservice.db.resources.tags import resource_tag_exists
from myservice.db.resources.tags import resource_tag_remove
from myservice.db.resources.tags import resource_tags_add
from myservice.db.resources.tags import resource_tags_get
from myservice.db.resources.tags import resource_tags_get_many
from myservice.db.resources.tags import resource_tags_remove
from myservice.db.resources.tags import resource_tags_set
from myservice.db.rows import Row
from myservice.db.service import service_create
from myservice.db.service import service_destroy
from myservice.db.service import service_get
from myservice.db.service import service_get_all
from myservice.db.service import service_get_by_host_and_binary
from myservice.db.service import service_get_many
from myservice.db.service import service_get_minimum_version
from myservice.db.service import service_heartbeat
from myservice.db.service import service_heartbeat_many
from myservice.db.service import service_register
from myservice.db.service import service_unregister
from myservice.db.service import service_update
from myservice.db.service_count import service_count
from myservice.db.transaction.orm_session import Session
from myservice.db.transaction.retry import atomic
from myservice.db.transaction.retry import run_in_transaction
from myservice.db.transaction.session import AnySession
from myservice.db.transaction.session import get_session
from myservice.db.transaction.session import savepoint
from myservice.db.transaction.session import transaction
from myservice.db.transaction.statistics import statistics

__all__ = [  # noqa: RUF022 - in the order in which a reader wants them
    # the engine
    'configure',
    'dispose',
    'get_engine',
    'Engines',
    'statistics',
    # transactions
    'get_session',
    'Session',
    'AnySession',
    'transaction',
    'savepoint',
    'run_in_transaction',
    'atomic',
    # services
    'service_count',
    'service_create',
    'service_destroy',
    'service_get',
    'service_get_all',
    'service_get_by_host_and_binary',
    'service_get_many',
    'service_get_minimum_version',
    'service_heartbeat',
    'service_heartbeat_many',
    'service_register',
    'service_unregister',
    'service_update',
    # quotas
    'quota_create',
    'quota_destroy',
    'quota_get',
    'quota_get_all',
    'quota_set',
    'quota_update',
    'quota_get_defaults',
    'quota_class_create',
    'quota_class_destroy',
    'quota_class_get',
    'quota_class_get_all',
    'quota_class_set',
    'quota_class_update',
    'quota_counter_register',
    'PROJECT',
    'quota_usage_check',
    'quota_usage_get_all',
    'quota_usage_get_projects',
    'quota_usage_get_uncounted',
    'quota_usage_sync',
    'quota_reserve',
    'reservation_commit',
    'reservation_rollback',
    'reservation_expire',
    'reservation_purge',
    # resources
    'resource_count',
    'resource_create',
    'resource_destroy',
    'resource_get',
    'resource_get_all',
    'resource_get_many',
    'resource_update',
    'resource_metadata_delete',
    'resource_metadata_get',
    'resource_metadata_get_many',
    'resource_metadata_set',
    'resource_metadata_update',
    'resource_tag_add',
    'resource_tag_exists',
    'resource_tag_remove',
    'resource_tags_add',
    'resource_tags_get',
    'resource_tags_get_many',
    'resource_tags_remove',
    'resource_tags_set',
    # claims
    'Claim',
    'resource_claim',
    'resource_claim_hand_over',
    'resource_claim_next',
    'resource_claim_renew',
    'resource_release',
    'claims_take_over',
    # what they return, for annotations
    'Row',
    'ServiceRow',
    'QuotaRow',
    'QuotaClassRow',
    'ResourceRow',
    # conditions, for filters and for what is expected
    'Contains',
    'Not',
    'Range',
    'StartsWith',
    # maintenance
    'purge_operations',
    # errors
    'DATABASE_ERRORS',
]
