"""The email that the screenshots show."""

from tests.browser.scene import HTML, TEXT
from truncus_django.message import TruncusMessage
from truncus_django.previews import EmailPreviews


class OrderPreviews(EmailPreviews):
    """What a customer hears of an order."""

    def on_its_way(self) -> TruncusMessage:
        """When the carrier has the order."""
        message = TruncusMessage(
            "Your order 48213 is on its way",
            TEXT,
            "Leaf & Kettle <tea@example.com>",
            ["ada.lindqvist@example.com"],
            html=HTML.replace(
                "</div></body>", '<p><a href="/terms">Our terms</a></p></div></body>'
            ),
            reply_to=["orders@example.com"],
            metadata={"order": "LK-48213"},
            tenant_id="shop",
        )
        message.attach("invoice-LK-48213.pdf", b"%PDF-1.4" * 6000, "application/pdf")
        return message
