"""The errors that a stage turns into one line and exit code 1."""


class UserError(Exception):
    """Something that the user can mend: one line that says what was found where, and what to do."""


class ParameterError(UserError):
    """params.yaml, a preset, or a reading of them is wrong: one line that names the key."""
