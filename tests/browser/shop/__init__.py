"""An app with the preview of an email, for the screenshots."""
