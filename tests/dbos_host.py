"""A program that uses DBOS by itself, on the database Perdure uses too; run as a process."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from dbos import DBOS

NAME, VERSION, QUEUE, EXECUTOR = "host", "host-7", "host_jobs", "host-1"


@DBOS.workflow(name="host_job")
def job(word: str) -> str:
    """What it does all day."""
    return f"did {word}"


@DBOS.workflow(name="host_beat")
def beat(scheduled: datetime, context: Any) -> str:
    """What its schedule fires."""
    return f"beat {context}"


def launch(url: str) -> None:
    """Launch DBOS as its documentation shows it."""
    DBOS(
        config={
            "name": NAME,
            "system_database_url": url,
            "application_version": VERSION,
            "executor_id": EXECUTOR,
            "run_migrations": False,
            "scheduler_polling_interval_sec": 0.2,
        }
    )
    DBOS.launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=0.1)


def main(url: str, *workflow_ids: str) -> None:
    """Serve the database of ``url`` until these workflows have ended; print how, as JSON."""
    launch(url)
    results: dict[str, Any] = {
        one: DBOS.retrieve_workflow(one).get_result() for one in workflow_ids
    }
    results["new"] = DBOS.start_workflow(job, "something new").get_result()
    DBOS.destroy()
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
