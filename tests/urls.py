"""The URLs of the test suite: what the documentation tells a project to have."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("truncus/", include("truncus_django.urls")),
    path("emails/", include("truncus_django.previews.urls")),
    path("admin/", admin.site.urls),
]
