"""Campaigns: their files, the current one, their jobs in the queue, locks, and running them here."""

import json
from pathlib import Path

import pytest

from metaopt.core.errors import FileFormatError, InvalidConfig, LockedField, StorageError, UnknownName, UntrustedCode
from metaopt.operations import campaign_run
from metaopt.operations.campaign import machine_and_flags, read_campaign
from metaopt.operations.campaign_folder import CampaignFolder
from metaopt.operations.campaign_run import add_to_queue, plan, run_here
from metaopt.operations.jobs import State
from metaopt.operations.queue import JobQueue

HERO = """\
common: {run_name: one, task: digits}
train-target: {epochs: 3, target_model: MLP}
train-optimizer: {epochs: 2}
"""

CAMPAIGN = """\
hero: hero.yaml
locked: [task, seed, epochs]
jobs:
- {name: record, workflow: train-target}
- {name: other, workflow: train-target, after: [], overrides: {run-name: two, seed: 9}, priority: 3}
- name: learn
  workflow: train-optimizer
  after: [record, other]
  overrides:
    run_name: one,two
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with a hero and a campaign."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METAOPT_QUEUE", raising=False)
    Path("hero.yaml").write_text(HERO)
    Path("campaigns/first").mkdir(parents=True)
    Path("campaigns/first/campaign.yaml").write_text(CAMPAIGN)
    return tmp_path


@pytest.fixture
def queue():
    with JobQueue("queue.db") as opened:
        yield opened


def campaign(old="", new=""):
    """The campaign, with a change of its file."""
    path = Path("campaigns/first/campaign.yaml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return read_campaign(path.parent)


def flags(**values):
    return lambda workflow: machine_and_flags(workflow, flags=values)


def test_jobs_have_their_configurations_and_wait_for_each_other(queue):
    added = add_to_queue(campaign(), queue)
    jobs = {each.job.name: each.job for each in added}
    record, other, learn = (jobs[f"first/{name}"] for name in ("record", "other", "learn"))
    assert (record.config["run_name"], record.config["epochs"], record.config["task"]) == ("one", 3, "digits")
    assert (other.config["run_name"], other.config["seed"], other.priority) == ("two", 9, 3)
    assert (learn.workflow, learn.config["run_name"], learn.config["epochs"]) == ("train-optimizer", "one,two", 2)
    assert {**record.depends_on, **other.depends_on} == {}
    assert {*learn.depends_on} == {record.id, other.id}


def test_a_job_waits_for_the_one_before_it_by_default():
    chain = campaign(", after: []")
    assert [chain.needed(job) for job in chain.jobs] == [(), ("record",), ("record", "other")]


def test_running_twice_adds_no_job_twice(queue):
    first = add_to_queue(campaign(), queue)
    again = add_to_queue(campaign(), queue)
    assert [each.job.id for each in again] == [each.job.id for each in first]
    assert [each.added for each in (*first, *again)] == [True] * 3 + [False] * 3
    assert len(queue.jobs()) == 3


def test_where_it_runs_makes_no_new_job_but_another_configuration_does(queue):
    add_to_queue(campaign(), queue)
    assert not any(each.added for each in add_to_queue(campaign(), queue, flags(device="cpu", threads=2)))
    changed = add_to_queue(campaign("run_name: one,two", "lr: 0.01"), queue)
    assert [each.added for each in changed] == [False, False, True]
    assert changed[-1].job.config["lr"] == 0.01


def test_another_content_of_a_file_makes_a_new_job(queue):
    Path("stages.yaml").write_text("stages: [{horizon: 40}]")
    named = campaign("run_name: one,two", "curriculum: stages.yaml")
    add_to_queue(named, queue)
    assert not any(each.added for each in add_to_queue(named, queue))
    Path("stages.yaml").write_text("stages: [{horizon: 80}]")
    assert [each.added for each in add_to_queue(named, queue)] == [False, False, True]
    assert not any(each.added for each in add_to_queue(named, queue))


def test_the_same_job_of_another_campaign_is_another_job(queue):
    add_to_queue(campaign(), queue)
    Path("campaigns/second").mkdir()
    Path("campaigns/second/campaign.yaml").write_text(CAMPAIGN)
    assert all(each.added for each in add_to_queue(read_campaign(Path("campaigns/second")), queue))


def test_a_locked_parameter_refuses_another_value(queue):
    add_to_queue(campaign(), queue)
    with pytest.raises(LockedField) as raised:
        add_to_queue(campaign("seed: 9", "seed: 8"), queue)
    path = Path("campaigns/first/campaign.yaml")
    assert str(raised.value) == (
        f"seed of the job other is 8 (campaign {path}:5), and the campaign first has locked it at 9; give that value, "
        "or make another campaign with `metaopt campaign new`"
    )
    assert len(queue.jobs()) == 3


@pytest.mark.parametrize("origin", ["hero", "flag"])
def test_a_lock_holds_against_every_layer(queue, origin):
    add_to_queue(campaign(), queue)
    if origin == "hero":
        Path("hero.yaml").write_text(HERO.replace("epochs: 3", "epochs: 4"))
    with pytest.raises(LockedField, match=f"epochs of the job record is 4 .{origin}.*locked it at 3"):
        plan(campaign(), flags(**({"epochs": "4"} if origin == "flag" else {})))


def test_a_lock_cannot_be_removed_from_the_list_and_holds_for_what_already_ran(queue):
    add_to_queue(campaign("locked: [task, seed, epochs]", "locked: [seed]"), queue)
    with pytest.raises(LockedField, match="seed of the job record"):
        plan(campaign("locked: [seed]", "locked: []"), flags(seed=5))
    with pytest.raises(LockedField, match="lr of the job record"):
        plan(campaign("locked: []", "locked: [lr]"), flags(lr=5))
    assert plan(campaign(), flags(batch_size=5))


def test_a_machine_is_a_layer_between_campaign_and_flags():
    Path("hosts.yaml").write_text("gpu: {parameters: {seed: 5, epochs: 6, device: cpu, threads: 4}}")
    planned = plan(campaign(), lambda workflow: machine_and_flags(workflow, "gpu", Path("hosts.yaml"), {"epochs": "7"}))
    assert [each.resolved.config.seed for each in planned] == [5, 5, 5]
    assert [each.resolved.config.epochs for each in planned] == [7, 7, 7]
    assert planned[0].resolved.config.threads == 4
    with pytest.raises(UnknownName, match="names no machine 'gpuu': did you mean gpu"):
        plan(campaign(), lambda workflow: machine_and_flags(workflow, "gpuu", Path("hosts.yaml")))


def test_code_in_files_needs_a_flag(queue):
    named = campaign("seed: 9", "target_model: 'os:system'")
    with pytest.raises(UntrustedCode, match=r"campaign\.yaml sets target_model to 'os:system'"):
        add_to_queue(named, queue)
    assert queue.jobs() == []
    assert add_to_queue(named, queue, flags(trust_config="true"))


def test_new_makes_a_job_for_each_section_and_switches():
    folder = CampaignFolder()
    assert folder.current is None
    made = folder.new("second", Path("hero.yaml"))
    assert [job.title for job in made.jobs] == ["train-target", "train-optimizer"]
    assert [made.needed(job) for job in made.jobs] == [(), ("train-target",)]
    assert (folder.names, folder.current, folder.read().name) == (["first", "second"], "second", "second")
    folder.switch("first")
    assert folder.read().name == "first"
    with pytest.raises(InvalidConfig, match="the campaign first exists"):
        folder.new("first", Path("hero.yaml"))
    with pytest.raises(UnknownName, match="no campaign 'frist' in campaigns/: did you mean first"):
        folder.switch("frist")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-flag", "two words", "x" * 101, "a\nb"])
def test_names_that_are_no_folder_are_refused(name):
    with pytest.raises(InvalidConfig, match="the name of a campaign is"):
        CampaignFolder().new(name, Path("hero.yaml"))


def test_without_a_current_campaign_one_is_to_be_named():
    with pytest.raises(UnknownName, match="no current campaign"):
        CampaignFolder().read()
    with pytest.raises(UnknownName, match="there are none"):
        CampaignFolder(Path("elsewhere")).read("first")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("workflow: train-optimizer", "workflow: train-optimiser", "job 3 of .*no workflow 'train-optimiser': did you"),
        ("after: [record, other]", "after: [recrd]", "the job learn of .* comes after 'recrd'.*did you mean record"),
        ("after: []", "after: [learn]", "the job other of .* comes after 'learn', which is no job before it"),
        ("name: other", "name: record", "two jobs of the name 'record'"),
        ("name: other", "name: a/b", "job 2 of .*: the name of a job is 'a/b'"),
        ("name: record, workflow: train-target", "name: record", "job 1 of .* has no workflow"),
        ("priority: 3", "prority: 3", "job 2 of .*unknown parameter 'prority'"),
        ("locked:", "lokked:", "unknown parameter 'lokked' for CampaignConfig: did you mean locked"),
        (CAMPAIGN[CAMPAIGN.index("jobs:") :], "jobs: []", r"has the jobs \[\]; expected a list"),
        ("- {name: record, workflow: train-target}", "- 5", "job 1 of .* is 5; expected names with values"),
    ],
)
def test_invalid_campaigns_are_refused(old, new, message):
    with pytest.raises((InvalidConfig, UnknownName), match=message):
        campaign(old, new)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("locked: [task", "locked: [tsak", "locks 'tsak', which no job has: did you mean task"),
        ("run-name: two", "runname: two", "the job other of .* has the parameter 'runname': did you mean run_name"),
        ("hero: hero", "hero: heroo", r"cannot read the configuration heroo\.yaml"),
    ],
)
def test_a_configuration_that_is_refused_adds_no_job(queue, old, new, message):
    with pytest.raises(InvalidConfig, match=message):
        add_to_queue(campaign(old, new), queue)
    assert queue.jobs() == []


def test_a_damaged_state_is_refused_and_a_running_campaign_runs_once(queue):
    add_to_queue(campaign(), queue)
    with (
        campaign_run._locked(campaign()),
        pytest.raises(StorageError, match="another process runs the campaign first"),
    ):
        add_to_queue(campaign(), queue)
    Path("campaigns/first/state.json").write_text('{"jobs": 5}')
    with pytest.raises(FileFormatError, match="is damaged"):
        plan(campaign())


class Stopped(Exception):
    pass


def test_a_campaign_runs_here_and_goes_on_where_it_was_interrupted(monkeypatch):
    ran = []

    def run(self, config):
        ran.append((config.run_name, getattr(config, "resume", None), config.overwrite))
        if len(ran) == 2:
            Path("trajectories/two/seed_9/snapshots").mkdir(parents=True)
            raise Stopped
        return config.run_name

    monkeypatch.setattr(campaign_run.find_workflow("train-target").__class__, "run", run)
    with pytest.raises(Stopped):
        list(run_here(campaign()))
    returned = [(each.name, value) for each, value in run_here(campaign())]
    assert returned == [("first/other", "two"), ("first/learn", "one,two")]
    assert ran == [("one", False, False), ("two", False, False), ("two", True, False), ("one,two", None, False)]
    assert list(run_here(campaign())) == []
    state = json.loads(Path("campaigns/first/state.json").read_text())["jobs"]
    assert {name: job["here"] for name, job in state.items()} == dict.fromkeys(("record", "other", "learn"), "done")


def test_the_state_of_a_job_in_the_queue_does_not_matter(queue):
    (first, *_) = add_to_queue(campaign(), queue)
    queue.stop(first.job.id)
    again = add_to_queue(campaign(), queue)[0]
    assert (again.added, again.job.state) == (False, State.STOPPED)
