"""The package's URLs: ``path("truncus/", include("truncus_django.urls"))``."""

from django.urls import path

from truncus_django.views import health, unsubscribe, webhook

app_name = "truncus_django"

urlpatterns = [
    path("webhook/", webhook, name="webhook"),
    path("unsubscribe/<str:token>/", unsubscribe, name="unsubscribe"),
    path("health/", health, name="health"),
]
