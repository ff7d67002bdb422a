"""Workers: processes that run segments. One file per duty."""
