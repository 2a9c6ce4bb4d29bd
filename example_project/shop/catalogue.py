"""What the shop sells."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Product:
    """Something on the shelf; the price is in euros."""

    slug: str
    name: str
    description: str
    price: Decimal


PRODUCTS: Mapping[str, Product] = {
    product.slug: product
    for product in (
        Product("assam", "Assam “Breakfast & More”", "Malty and strong, 100 g", Decimal("8.90")),
        Product("sencha", "Sencha", "Fresh and grassy, 100 g", Decimal("12.50")),
        Product("oolong", "Milk oolong", "Soft and buttery, 50 g", Decimal("14.00")),
        Product("rooibos", "Rooibos", "Without caffeine, 250 g", Decimal("9.80")),
        Product("kettle", "Gooseneck kettle", "Pours as slowly as you like", Decimal("64.00")),
        Product("cups", "Two cups", "Stoneware, 200 ml each", Decimal("22.00")),
    )
}
