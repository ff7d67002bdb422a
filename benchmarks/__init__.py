"""Perdure side by side with the bare Agents SDK and with dbos-openai-agents, in one run."""
