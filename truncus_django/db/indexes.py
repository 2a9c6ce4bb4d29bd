"""Indexes of some rows only: the others cost nothing to insert."""

from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


class PartialIndex(models.Index):
    """An index of some rows, where the database has such a thing, and elsewhere of all.

    Django's own ``condition`` warns at each ``migrate`` of MySQL, which has none (``models.W037``).

    Args:
        where: which rows.
        fields, name: as of any index.
    """

    def __init__(self, *, where: models.Q, **options: Any) -> None:
        super().__init__(**options)
        self.where = where

    def create_sql(
        self,
        model: type[models.Model],
        schema_editor: BaseDatabaseSchemaEditor,
        using: str = "",
        **kwargs: Any,
    ) -> Any:
        """Return the statement that makes it on one database."""
        if not schema_editor.connection.features.supports_partial_indexes:
            return super().create_sql(model, schema_editor, using, **kwargs)
        partial = models.Index(fields=self.fields, name=self.name, condition=self.where)
        return partial.create_sql(model, schema_editor, using, **kwargs)

    def deconstruct(self) -> tuple[str, Any, dict[str, Any]]:
        """Return what it is made of, for migrations."""
        path, arguments, options = super().deconstruct()
        return path, arguments, {**options, "where": self.where}
