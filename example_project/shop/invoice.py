"""The invoice that goes with an order: a PDF of one page, written by hand."""

from collections.abc import Iterable

from django.utils import timezone

from shop.models import Order

_LEFT, _TOP, _LINE_HEIGHT = 56, 770, 18  # points on an A4 page of 595 by 842
_PRICE_WIDTH = 10


def invoice(order: Order) -> bytes:
    """Return the invoice of ``order`` as a PDF file."""
    customer = order.customer
    lines = [
        f"Invoice {order.number}",
        f"{timezone.localtime(order.created_at):%d %B %Y}",
        "",
        customer.get_full_name() or customer.email,
        customer.email,
        "",
        *(_row(str(line), f"{line.total} €") for line in order.lines.all()),
        _row("", "-" * _PRICE_WIDTH),
        _row("Total", f"{order.total} €"),
        "",
        "Leaf & Kettle · 1 Example Street · Exampletown",
    ]
    return pdf_page(lines)


def _row(what: str, price: str) -> str:
    return f"{what:<50}{price:>{_PRICE_WIDTH}}"


def pdf_page(lines: Iterable[str]) -> bytes:
    """Return a PDF file of one A4 page that shows ``lines`` in a fixed-width font.

    The first line is the largest. Characters outside Windows-1252 become question marks.
    """
    first, *others = lines
    shown = [f"/F1 18 Tf {_quoted(first)} Tj", "/F1 11 Tf"]
    shown += [f"T* {_quoted(line)} Tj" for line in others]
    content = f"BT {_LINE_HEIGHT} TL {_LEFT} {_TOP} Td {' '.join(shown)} ET".encode("cp1252")
    return _file(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R"
        b" /Resources << /Font << /F1 4 0 R >> >> >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
    )


def _quoted(text: str) -> str:
    """Return ``text`` as a PDF string, with only those characters that the font has."""
    known = text.encode("cp1252", "replace").decode("cp1252")
    for special in ("\\", "(", ")"):
        known = known.replace(special, "\\" + special)
    return f"({known})"


def _file(*objects: bytes) -> bytes:
    """Return a PDF file of ``objects``, numbered from 1; the first is the catalogue."""
    file, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    file += b"trailer\n<< /Size %d /Root 1 0 R >>\n" % (len(objects) + 1)
    return file + b"startxref\n%d\n%%%%EOF\n" % start
