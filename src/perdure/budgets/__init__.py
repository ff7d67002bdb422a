"""How much may be spent: limits, what is spent of them, and what calls under way may take."""
