"""An index for searching inside addresses and subjects, where PostgreSQL lets us have one.

``pg_trgm`` is a trusted extension since PostgreSQL 13: whoever may create things in a database
may create it. Where that is not so, the search still works, and reads the table.
"""

from django.db import Error, migrations, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

INDEX = "truncus_email_search"


def create_index(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    table = connection.ops.quote_name(apps.get_model("truncus_django", "Email")._meta.db_table)
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            cursor.execute(f"CREATE INDEX {INDEX} ON {table} USING gin (search_text gin_trgm_ops)")
    except Error:
        return


def drop_index(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(f"DROP INDEX IF EXISTS {INDEX}")


class Migration(migrations.Migration):
    dependencies = [("truncus_django", "0001_log")]

    operations = [migrations.RunPython(create_index, drop_index, elidable=False)]
