"""What a run did and what came of it, in three lines of Markdown: its description in the UI."""

from dataclasses import dataclass

_LONGEST_ERROR = 600  # [characters], which the page of a run shows without being asked for more


@dataclass
class Note:
    """The lines of a run's description; empty ones are left out.

    Attributes:
        does: what the run does.
        result: what came of it; None as long as it goes on.
        see: what belongs to it, with links.
    """

    does: str = ""
    result: str | None = None
    see: str = ""

    def change(self, does: str | None, result: str | None, see: str | None) -> None:
        """Replace the lines that are given; what belongs to the run is added to what is known to."""
        self.does = self.does if does is None else one_line(does)
        self.result = self.result if result is None else one_line(result)
        self.see = self.see if see is None else ". ".join(filter(None, [self.see, one_line(see)]))

    def end(self, status: str, reason: str | None) -> None:
        """Say how the run ended, where its result does not.

        Args:
            status: FINISHED, FAILED or KILLED.
            reason: the error of a failed run.
        """
        if status == "FAILED":
            self.result = f"failed: {code(reason or 'for an unknown reason')}"
        elif status == "KILLED":
            self.result = "stopped before its end, by Ctrl-C or SIGTERM"
        else:
            self.result = self.result or ""

    def markdown(self) -> str:
        """The whole description; empty where nothing was said."""
        if not (self.does or self.result or self.see):
            return ""
        result = "none yet" if self.result is None else self.result
        return "\n".join(filter(None, [self.does, result and f"**Result:** {result}", self.see]))


def one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())


def code(text: str) -> str:
    """A text in one line that Markdown leaves as it is, shortened to what a page shows at once."""
    line = one_line(text).replace("`", "'")
    return f"`{line if len(line) <= _LONGEST_ERROR else line[:_LONGEST_ERROR] + ' …'}`"
