"""What the database needs to know or to be asked, whatever is stored in it."""
