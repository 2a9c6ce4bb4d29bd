"""Previews, and the pages that show them."""
