"""An app with a preview of each kind."""
