"""The same conversation under two prompts: a run, and a fork of it that is told something else.

    python examples/two_prompts.py
    python examples/two_prompts.py "Talk like a pirate."

A run answers a customer. A fork goes on from its beginning with other instructions: calls it makes
as the run did are answered with what came of them, so nothing is booked twice. Then the two are
shown beside each other.

Without ``OPENAI_API_KEY`` (or ``OPENAI_BASE_URL``) the replies come from a model made of rules, and
without ``DATABASE_URL`` the runs are in an embedded Postgres.
"""

import asyncio
import logging
import sys

from agents import Agent, function_tool

from perdure import Engine, offline

bookings: list[str] = []


@function_tool
def book_table(name: str, guests: int) -> str:
    """Book a table and return its number."""
    bookings.append(name)
    return f"table {len(bookings)} for {guests}"


waiter = Agent(
    name="waiter",
    instructions="Book a table where one is wanted. Be brief.",
    tools=[book_table],
)

engine = Engine(agents=[waiter], model_provider=offline.unless_key("tables"))


async def compare(other: str) -> None:
    """Run, fork under the ``other`` prompt, and print both."""
    run = await engine.start("waiter", "A table for 4, please. My name is Ada.")
    await run.wait()
    fork = await run.fork(0, instructions=other)
    await fork.wait()
    for question in fork.interruptions:
        # A call the run did not make: a person is asked before it is.
        print(f"The fork asks first: {question.tool['name']} {question.tool['arguments']}")
    print(f"as it is:  {run.output}")
    print(f"forked:    {fork.output}")
    print(f"{len(bookings)} table was booked. See: perdure runs diff {fork.id}")


async def main() -> None:
    """Compare with the worker in this process."""
    async with engine:
        await compare(sys.argv[1] if len(sys.argv) > 1 else "Talk like a pirate.")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main())
