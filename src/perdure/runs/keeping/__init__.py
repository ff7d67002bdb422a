"""How long runs are kept, and how they and people are forgotten: all they left, DBOS's rows too."""
