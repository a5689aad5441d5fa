"""The one exception for failures that a user can cause and mend."""


class FewshotError(Exception):
    """An expected failure, told in one sentence: what is wrong, where, and what to do about it."""
