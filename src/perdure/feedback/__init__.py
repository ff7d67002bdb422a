"""What people think of runs and of what was said: a rating or a like, of a type, with a comment."""
