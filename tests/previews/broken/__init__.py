"""An app whose previews cannot be imported."""
