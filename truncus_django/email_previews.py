"""Previews of the emails that Django itself sends; those of a project are in its own apps."""

from typing import Any

from django.apps import apps
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, resolve, reverse

from truncus_django.previews import EmailPreviews

_NAMES = ("password_reset", "admin_password_reset")


def _password_reset_view() -> Any:
    """Return the project's view for a forgotten password as it is configured, if it has one."""
    for name in _NAMES:
        try:
            view: Any = resolve(reverse(name)).func
        except NoReverseMatch:
            continue
        made = view.view_class(**view.view_initkwargs) if hasattr(view, "view_class") else None
        if hasattr(made, "email_template_name"):  # or it is none of Django's
            return made
    return None


if apps.is_installed("django.contrib.auth"):
    # Here, because its models need the app, which is optional.
    from django.contrib.auth import get_user_model
    from django.contrib.auth.forms import PasswordResetForm

    class DjangoPreviews(EmailPreviews):
        """Emails of Django itself."""

        @classmethod
        def _preview_names(cls) -> list[str]:
            """Return none where nobody can forget a password."""
            return super()._preview_names() if _password_reset_view() is not None else []

        def password_reset(self) -> EmailMessage:
            """The link to choose a new password, with the templates of the project's URL
            ``password_reset``, for somebody who does not exist."""
            view = _password_reset_view()
            form = _Form({"email": "ada@example.com"})
            form.full_clean()
            form.save(
                domain_override="example.com",
                use_https=True,
                subject_template_name=view.subject_template_name,
                email_template_name=view.email_template_name,
                html_email_template_name=view.html_email_template_name,
                extra_email_context=view.extra_email_context,
                from_email=view.from_email,
                token_generator=view.token_generator,
            )
            return form.message

    class _Form(PasswordResetForm):
        """Django's form, which keeps the message instead of sending it."""

        message: EmailMessage

        def get_users(self, email: str) -> list[Any]:
            model: Any = get_user_model()
            user = model(**{model.USERNAME_FIELD: "ada", model.get_email_field_name(): email})
            if hasattr(user, "first_name"):
                user.first_name = "Ada"
            user.set_unusable_password()
            return [user]

        def send_mail(
            self,
            subject_template_name: str,
            email_template_name: str,
            context: dict[str, Any],
            from_email: str | None,
            to_email: str,
            html_email_template_name: str | None = None,
        ) -> None:
            subject = "".join(render_to_string(subject_template_name, context).splitlines())
            body = render_to_string(email_template_name, context)
            message = EmailMultiAlternatives(subject, body, from_email, [to_email])
            if html_email_template_name is not None:
                html = render_to_string(html_email_template_name, context)
                message.attach_alternative(html, "text/html")
            self.message = message
