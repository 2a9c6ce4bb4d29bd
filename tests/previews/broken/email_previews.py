"""A module with a mistake in it."""

raise LookupError("<script>this module is broken</script>")
