"""What goes out: from Django's messages to requests, and what became of them."""
