"""The language of an order's emails."""

# ruff: noqa: RUF012

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="order",
            name="language",
            field=models.CharField(default="en", max_length=10),
        ),
    ]
