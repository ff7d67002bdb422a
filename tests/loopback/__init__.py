"""The OpenAI API on a loopback port: real HTTP, real event streams, and trouble on demand."""
