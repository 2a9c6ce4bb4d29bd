"""Tests of the admin in a real browser, and the screenshots in the documentation."""
