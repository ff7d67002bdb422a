"""A chat that lasts: leave it, come back, and take a question back to ask another one.

    python examples/chat.py
    python examples/chat.py holidays

Each answer is a durable run in a session. ``/edit WORDS`` asks your last question in other words,
in a branch: what was said before it is shared, the conversation as it was stays. ``/history`` shows
what was said, ``/quit`` (or Ctrl-D) leaves; the next start goes on where you were.

Without ``OPENAI_API_KEY`` (or ``OPENAI_BASE_URL``) the replies come from a model made of rules, and
without ``DATABASE_URL`` the conversations are in an embedded Postgres.
"""

import asyncio
import logging
import sys
from uuid import UUID

from agents import Agent

from perdure import Engine, PostgresSession, offline

USER = "you"

companion = Agent(name="companion", instructions="Talk with the user. Be brief.")

engine = Engine(agents=[companion], model_provider=offline.unless_key("chat"))


async def chat(key: str) -> None:
    """Talk in the conversation of this key, or in the branch of it that was talked in last."""
    session = await newest(PostgresSession(key, user_id=USER, engine=engine))
    items = await session.get_items()
    print(f"{len(items)} things were said here. /edit WORDS, /history, /quit", flush=True)
    while line := await asyncio.to_thread(read_line):
        command, _, words = line.partition(" ")
        if command == "/quit":
            return
        if command == "/history":
            for item in await session.get_items():
                print(f"  {item.get('role')}: {text_of(item)}")
        elif command == "/edit":
            session = await before_the_last_question(session)
            await ask(session, words)
        else:
            await ask(session, line)


async def ask(session: PostgresSession, words: str) -> None:
    """Ask the agent, and print its answer as it is written."""
    run = await engine.start("companion", words, session_id=await session.id(), user_id=USER)
    async for event in run.stream():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(event.data.delta, end="", flush=True)
    print(flush=True)


async def before_the_last_question(session: PostgresSession) -> PostgresSession:
    """A branch that reads this conversation up to the item before your last question."""
    items = await session.get_items()
    asked = [place for place, item in enumerate(items) if item.get("role") == "user"]
    return await session.branch(from_seq=asked[-1] if asked else 0)


async def newest(session: PostgresSession) -> PostgresSession:
    """The branch that was made last, or the conversation itself."""
    async with engine.pool.connection() as conn:
        cursor = await conn.execute(
            "SELECT id FROM perdure.sessions WHERE root_session_id = %s ORDER BY id DESC LIMIT 1",
            [await session.id()],
        )
        [row] = await cursor.fetchall()
    return PostgresSession.existing(UUID(str(row["id"])), user_id=USER, engine=engine)


def read_line() -> str:
    """What the user says next; "/quit" at the end of the input."""
    if sys.stdin.isatty():
        print("> ", end="", flush=True)
    return sys.stdin.readline().strip() or "/quit"


def text_of(item: object) -> str:
    """What was said in an item."""
    content = item.get("content") if isinstance(item, dict) else None
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content)
    return str(content)


async def main() -> None:
    """Run the chat with the worker in this process."""
    async with engine:
        await chat(sys.argv[1] if len(sys.argv) > 1 else "chat")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main())
