"""The URLs of the previews: ``path("emails/", include("truncus_django.previews.urls"))``."""

from django.urls import path

from truncus_django.previews import views

app_name = "truncus_previews"

_PREVIEW = "<str:app>/<str:group>/<str:name>/"

urlpatterns = [
    path("", views.preview_list, name="list"),
    path(_PREVIEW, views.preview_detail, name="detail"),
    path(f"{_PREVIEW}html/", views.preview_html, name="html"),
]
