"""Proof by chaos: real workers killed, paused and cut off from their database at random.

``python -m chaos --help`` says how. ``plan`` is what happens when, from one seed; ``script`` the
work every run does; ``world`` what cannot be fooled; ``herd`` the workers; ``weather`` what
befalls them; ``perdure_side`` and ``plain_side`` who is tried; ``verdict`` what came of it.
"""
