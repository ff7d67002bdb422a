"""Pages for people: plain HTML that works without scripts. Pure.

What models and their users wrote is hostile text here as everywhere: it is made visible character
by character, then escaped, and stands in no attribute, script or style.
"""
