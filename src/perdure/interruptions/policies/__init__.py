"""Which calls people are asked about, who they are, and what becomes of it when nobody answers.

``policy`` is what an application or the API says, ``verdicts`` what it comes to for a call,
``question_rules`` what a question keeps of it; ``deciders`` and ``voting`` say who may decide and
when enough have; ``store`` keeps the policies made by API.
"""
