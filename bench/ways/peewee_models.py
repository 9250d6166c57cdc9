# mypy: disable-error-code="misc"
"""peewee's models of the tables that the jobs need."""

import peewee

from myservice.db.operation import new_id


class SoftDelete(peewee.Model):
    """The columns of tables whose rows are marked deleted."""

    id = peewee.CharField(36, primary_key=True, default=new_id)
    created_at = peewee.DateTimeField()
    updated_at = peewee.DateTimeField(null=True)
    deleted_at = peewee.DateTimeField(null=True)
    deleted = peewee.CharField(36, default='')


class Service(SoftDelete):
    """The table services."""

    host = peewee.CharField()
    binary = peewee.CharField()
    topic = peewee.CharField(null=True)
    availability_zone = peewee.CharField(null=True)
    version = peewee.IntegerField(default=0)
    disabled = peewee.BooleanField(default=False)
    disabled_reason = peewee.CharField(null=True)
    forced_down = peewee.BooleanField(default=False)
    last_seen_at = peewee.DateTimeField(null=True)
    registration = peewee.IntegerField(default=0)
    unregistered_at = peewee.DateTimeField(null=True)

    class Meta:
        table_name = 'services'


class Resource(SoftDelete):
    """The table resources."""

    project_id = peewee.CharField()
    name = peewee.CharField(null=True)
    kind = peewee.CharField(null=True)
    size = peewee.BigIntegerField(default=0)
    status = peewee.CharField(64, default='requested')
    service_id = peewee.CharField(36, null=True)
    generation = peewee.BigIntegerField(default=0)
    claim_generation = peewee.BigIntegerField(null=True)
    operation = peewee.CharField(36, default='')

    class Meta:
        table_name = 'resources'


class ResourceMetadata(peewee.Model):
    """The table resource_metadata."""

    resource_id = peewee.CharField(36)
    key = peewee.CharField()
    value = peewee.CharField()

    class Meta:
        table_name = 'resource_metadata'
        primary_key = peewee.CompositeKey('resource_id', 'key')


class ResourceTag(peewee.Model):
    """The table resource_tags."""

    resource_id = peewee.CharField(36)
    tag = peewee.CharField()

    class Meta:
        table_name = 'resource_tags'
        primary_key = peewee.CompositeKey('resource_id', 'tag')


class QuotaUsage(peewee.Model):
    """The table quota_usages."""

    project_id = peewee.CharField()
    resource = peewee.CharField()
    in_use = peewee.BigIntegerField()
    reserved = peewee.BigIntegerField(default=0)
    created_at = peewee.DateTimeField()
    updated_at = peewee.DateTimeField(null=True)

    class Meta:
        table_name = 'quota_usages'
        primary_key = peewee.CompositeKey('project_id', 'resource')


class Reservation(peewee.Model):
    """The table reservations."""

    id = peewee.CharField(36, primary_key=True, default=new_id)
    project_id = peewee.CharField()
    resource = peewee.CharField()
    delta = peewee.BigIntegerField()
    expire_at = peewee.DateTimeField()
    state = peewee.CharField(16, default='reserved')
    operation = peewee.CharField(36, default='')
    created_at = peewee.DateTimeField()
    updated_at = peewee.DateTimeField(null=True)

    class Meta:
        table_name = 'reservations'


ALL = (
    Service,
    Resource,
    ResourceMetadata,
    ResourceTag,
    QuotaUsage,
    Reservation,
)
