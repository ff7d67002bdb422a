"""Research with parallel searches, and an agent used as a tool that checks each finding.

    perdure dev examples/research.py
    perdure runs start researcher "What do you know about bees and tea?" --wait

Without ``OPENAI_API_KEY`` (or ``OPENAI_BASE_URL``) the replies come from a model made of rules.
"""

from agents import Agent, function_tool

from perdure import Engine, effect, offline

LIBRARY = {
    "bees": "A bee tells the others where flowers are by a dance with a waggle at 13 Hz.",
    "tea": "All true tea is made of the leaves of one plant, Camellia sinensis.",
    "volcanoes": "About 1,350 volcanoes on land are thought to be potentially active.",
}


@effect("read")
@function_tool
def search(topic: str) -> str:
    """Search the library for a topic, one word."""
    return LIBRARY.get(topic.lower(), f"Nothing was found on {topic}.")


checker = Agent(
    name="checker",
    instructions="Say in a few words whether the claim you are given can be checked.",
)

researcher = Agent(
    name="researcher",
    instructions=(
        "Search the library for each topic of the question, all at once. Have each finding "
        "checked, then sum up what was found, one line a finding."
    ),
    tools=[
        search,
        checker.as_tool("check_claim", "Have one claim checked; the input is the claim."),
    ],
)

engine = Engine(agents=[researcher], model_provider=offline.unless_key("research"))
