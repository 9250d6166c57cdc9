# mypy: disable-error-code="misc"
"""Django's models of the tables that the jobs need."""

import django
from django.conf import settings

settings.configure(USE_TZ=False, TIME_ZONE='UTC')
django.setup()

from django.db import models  # noqa: E402 - Django has to be set up

from myservice.db.operation import new_id  # noqa: E402


class Timestamped(models.Model):
    """The columns of all tables that say when a row was written."""

    created_at = models.DateTimeField()
    updated_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True


class SoftDelete(Timestamped):
    """The columns of tables whose rows are marked deleted."""

    id = models.CharField(max_length=36, primary_key=True, default=new_id)
    deleted_at = models.DateTimeField(null=True)
    deleted = models.CharField(max_length=36, default='')

    class Meta:
        abstract = True


class Service(SoftDelete):
    """The table services."""

    host = models.CharField(max_length=255)
    binary = models.CharField(max_length=255)
    topic = models.CharField(max_length=255, null=True)
    availability_zone = models.CharField(max_length=255, null=True)
    version = models.IntegerField(default=0)
    disabled = models.BooleanField(default=False)
    disabled_reason = models.CharField(max_length=255, null=True)
    forced_down = models.BooleanField(default=False)
    last_seen_at = models.DateTimeField(null=True)
    registration = models.IntegerField(default=0)
    unregistered_at = models.DateTimeField(null=True)

    class Meta:
        app_label = 'bench'
        managed = False
        db_table = 'services'


class Resource(SoftDelete):
    """The table resources."""

    project_id = models.CharField(max_length=255)
    name = models.CharField(max_length=255, null=True)
    kind = models.CharField(max_length=255, null=True)
    size = models.BigIntegerField(default=0)
    status = models.CharField(max_length=64, default='requested')
    service_id = models.CharField(max_length=36, null=True)
    generation = models.BigIntegerField(default=0)
    claim_generation = models.BigIntegerField(null=True)
    operation = models.CharField(max_length=36, default='')

    class Meta:
        app_label = 'bench'
        managed = False
        db_table = 'resources'


class ResourceMetadata(models.Model):
    """The table resource_metadata."""

    pk = models.CompositePrimaryKey('resource_id', 'key')
    resource_id = models.CharField(max_length=36)
    key = models.CharField(max_length=255)
    value = models.CharField(max_length=255)

    class Meta:
        app_label = 'bench'
        managed = False
        db_table = 'resource_metadata'


class ResourceTag(models.Model):
    """The table resource_tags."""

    pk = models.CompositePrimaryKey('resource_id', 'tag')
    resource_id = models.CharField(max_length=36)
    tag = models.CharField(max_length=255)

    class Meta:
        app_label = 'bench'
        managed = False
        db_table = 'resource_tags'


class QuotaUsage(Timestamped):
    """The table quota_usages."""

    pk = models.CompositePrimaryKey('project_id', 'resource')
    project_id = models.CharField(max_length=255)
    resource = models.CharField(max_length=255)
    in_use = models.BigIntegerField()
    reserved = models.BigIntegerField(default=0)

    class Meta:
        app_label = 'bench'
        managed = False
        db_table = 'quota_usages'


class Reservation(Timestamped):
    """The table reservations."""

    id = models.CharField(max_length=36, primary_key=True, default=new_id)
    project_id = models.CharField(max_length=255)
    resource = models.CharField(max_length=255)
    delta = models.BigIntegerField()
    expire_at = models.DateTimeField()
    state = models.CharField(max_length=16, default='reserved')
    operation = models.CharField(max_length=36, default='')

    class Meta:
        app_label = 'bench'
        managed = False
        db_table = 'reservations'
