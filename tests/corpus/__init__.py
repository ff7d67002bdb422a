"""Run states as versions of the Agents SDK wrote them, and what writes them."""
