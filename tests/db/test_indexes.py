"""An index of some rows is used by whoever looks for one of them."""

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection

from truncus_django.db.uuid7 import time_ordered_uuid
from truncus_django.models import Email

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("count", [1, 3])
def test_resends_are_found_without_reading_the_log(count):
    originals = [Email.objects.create(state="sent") for _ in range(count)]
    resend = Email.objects.create(state="sent", resend_of=originals[0])
    found = Email.objects.filter(resend_of__in=[original.pk for original in originals])

    assert [email.pk for email in found] == [resend.pk]
    if connection.vendor == "sqlite":  # the others take their time to find out what is worth it
        assert "truncus_email_resend_of" in found.order_by().explain()


def test_only_resends_are_in_it_where_the_database_can_do_that():
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, Email._meta.db_table)

    assert constraints["truncus_email_resend_of"]["columns"] == ["resend_of_id"]
    [index] = [index for index in Email._meta.indexes if index.name == "truncus_email_resend_of"]
    editor = connection.SchemaEditorClass(connection, collect_sql=True)
    sql = str(index.create_sql(Email, editor))
    assert ("IS NOT NULL" in sql) is connection.features.supports_partial_indexes


def test_a_log_that_is_forgotten_leaves_its_resend(transactional_db):
    original = Email.objects.create(state="sent", pk=time_ordered_uuid())
    resend = Email.objects.create(state="sent", resend_of=original)
    original.delete()

    resend.refresh_from_db()
    assert resend.resend_of is None


def test_nothing_is_to_be_migrated():
    assert apps.is_installed("truncus_django")
    call_command("makemigrations", "truncus_django", check=True, dry_run=True, verbosity=0)
