"""A run as the stream events of the Agents SDK, made of what is recorded of it."""
