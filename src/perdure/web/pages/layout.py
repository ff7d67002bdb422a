"""What every page is made of: its skeleton, its style, its headers. Pure."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping

from perdure.visible import visible

__all__ = ["HEADERS", "own_text", "page", "text"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1c1e; --paper: #fbfbfa; --card: #fff; --line: #d9dadc;
  --soft: #5d6167; --go: #11663f; --stop: #a3241c; --on: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e8ea; --paper: #16181a; --card: #1f2225;
  --line: #3b3f44; --soft: #a5abb3; --go: #7fd3a6; --stop: #ff9c92; --on: #111; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 44rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.4rem; line-height: 1.3; margin: 0 0 1rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1rem; margin: 0 0 1rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .4rem;
  margin: 0 0 1rem; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .95rem/1.45 ui-monospace, monospace; }
label { display: block; margin: 0 0 .3rem; }
textarea, select, input[type=text] { width: 100%; min-height: 2.75rem; padding: .6rem;
  border: 1px solid var(--soft); border-radius: .4rem; background: var(--card); color: inherit;
  font: inherit; }
textarea { min-height: 5rem; }
input[type=checkbox] { width: 1.25rem; height: 1.25rem; margin: 0 .5rem 0 0; }
.field { margin: 0 0 1.25rem; } .field p { margin: .25rem 0 0; }
.wrong { color: var(--stop); overflow-wrap: anywhere; }
[aria-invalid=true] { border-color: var(--stop); }
.hint, .digest { color: var(--soft); font-size: .875rem; overflow-wrap: anywhere; }
.buttons { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 1rem; }
button { font: inherit; font-weight: 600; padding: .6rem 1.4rem; border-radius: .4rem;
  border: 2px solid; cursor: pointer; min-height: 2.75rem; }
.approve, .answer { background: var(--go); border-color: var(--go);
  color: var(--on); }
.reject { background: transparent; border-color: var(--stop); color: var(--stop); }
:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
.said { border-left: 4px solid var(--line); padding-left: .8rem; margin: 0 0 1rem;
  white-space: pre-line; overflow-wrap: anywhere; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What pages are sent with: nothing is loaded, run, framed, kept or told to other sites."""


def text(value: str) -> str:
    """Return hostile text as HTML that shows each character of it."""
    return html.escape(visible(value))


def own_text(value: str) -> str:
    """Return what somebody typed as HTML in which it is to be changed: each character as it was."""
    return html.escape(value)


def page(title: str, body: str) -> str:
    """Return a whole page; ``title`` is hostile text, ``body`` HTML of ours."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="robots" content="noindex, nofollow">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )
