"""The pages: the shop, the accounts and the admin; what machines ask for."""

from importlib.util import find_spec

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path
from shop import views

urlpatterns = [
    path("", views.front, name="front"),
    path("orders/", views.place_order, name="place_order"),
    path("orders/<int:pk>/", views.order, name="order"),
    path("sign-up/", views.sign_up, name="sign_up"),
    path("login/", auth_views.LoginView.as_view(), name="login"),
    path("logout/", auth_views.LogoutView.as_view(), name="logout"),
    path(
        "password/",
        auth_views.PasswordResetView.as_view(
            subject_template_name="shop/emails/password_subject.txt",
            email_template_name="shop/emails/password.txt",
            html_email_template_name="shop/emails/password.html",
        ),
        name="password_reset",
    ),
    path("password/sent/", auth_views.PasswordResetDoneView.as_view(), name="password_reset_done"),
    path(
        "password/<uidb64>/<token>/",
        auth_views.PasswordResetConfirmView.as_view(post_reset_login=True, success_url="/"),
        name="password_reset_confirm",
    ),
    # Truncus tells here what became of mails, customers unsubscribe, monitors ask for the health.
    path("truncus/", include("truncus_django.urls")),
    path("emails/", include("truncus_django.previews.urls")),  # only with DEBUG
    path("admin/", admin.site.urls),
]
if find_spec("prometheus_client"):
    from config.metrics import metrics

    urlpatterns.append(path("metrics/", metrics, name="metrics"))
