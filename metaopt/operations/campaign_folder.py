"""The folder of campaigns: one folder for each, and a file that names the current one."""

import json
from pathlib import Path

from ..core.errors import InvalidConfig, UnknownName
from ..core.registry import suggest
from ..core.text import shown
from ..weights.atomic import write_text
from .campaign import FILE, Campaign, check_name, read_campaign
from .heroes import hero_workflows

CAMPAIGNS = Path("campaigns")
"""The folder that is read by default."""

_CURRENT = ".current"


class CampaignFolder:
    """Campaigns by their names.

        from pathlib import Path
        from metaopt.operations.campaign_folder import CampaignFolder

        hero = Path("hero.yaml")
        hero.write_text("train-target: {task: digits, target_model: MLP, epochs: 2}")
        folder = CampaignFolder()
        campaign = folder.new("first", hero)
        [job.title for job in campaign.jobs], folder.current  # a job for each section, 'first'

    Args:
        path: folder with a folder for each campaign.
    """

    def __init__(self, path: Path = CAMPAIGNS) -> None:
        self.path = path

    @property
    def names(self) -> list[str]:
        """The names of all campaigns."""
        return sorted(each.parent.name for each in self.path.glob(f"*/{FILE}"))

    @property
    def current(self) -> str | None:
        """The name of the current campaign; None if there is none, or if it was removed."""
        file = self.path / _CURRENT
        name = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
        return name if name in self.names else None

    def new(self, name: str, hero: Path) -> Campaign:
        """Make a campaign with a job for each section of a hero, and make it the current one.

        Raises:
            InvalidConfig: the name cannot be a folder or is taken, or the hero is invalid or has no section.
            StorageError: the folder cannot be written.
        """
        check_name(name, "a campaign")
        if name in self.names:
            raise InvalidConfig(f"the campaign {name} exists; choose another name, or edit {self.path / name / FILE}")
        workflows = hero_workflows(hero)
        if not workflows:
            raise InvalidConfig(f"{hero} has no section of a workflow; add one, such as `train-target:`")
        jobs = "".join(f"- {{name: {each}, workflow: {each}}}\n" for each in workflows)
        write_text(self.path / name / FILE, _TEXT.format(hero=json.dumps(str(hero), ensure_ascii=False), jobs=jobs))
        self.switch(name)
        return self.read(name)

    def read(self, name: str | None = None) -> Campaign:
        """The campaign of a name, or the current one.

        Raises:
            UnknownName: there is no such campaign, or no current one.
            InvalidConfig: its file is invalid.
        """
        chosen = self.current if name is None else name
        if chosen is None:
            raise UnknownName(
                f"no current campaign in {self.path}/; name one, choose one with `metaopt campaign switch`, or make "
                "one with `metaopt campaign new`"
            )
        if chosen not in self.names:
            known = (
                suggest(chosen, self.names) if self.names else "there are none; make one with `metaopt campaign new`"
            )
            raise UnknownName(f"no campaign {shown(chosen)} in {self.path}/: {known}")
        return read_campaign(self.path / chosen)

    def switch(self, name: str) -> None:
        """Make a campaign the current one.

        Raises:
            UnknownName: there is no such campaign.
            StorageError: the folder cannot be written.
        """
        self.read(name)
        write_text(self.path / _CURRENT, f"{name}\n")


_TEXT = """\
# Jobs run in this order; `after: [NAME]` names the jobs that one waits for, `after: []` lets it wait for none.
# `overrides: {{epochs: 20}}` in a job replaces values of the hero. No later run may change a parameter in `locked`.
hero: {hero}
locked: []
jobs:
{jobs}"""
