"""The workspaces as they would be sent: over catalogued names, created once, then updated."""

import json
import re
import sys
from types import SimpleNamespace

import pytest

from tinyflux_pl.core import metric_names as names
from tinyflux_pl.core.errors import ConfigError, MissingDependency
from tinyflux_pl.dashboards import __main__ as command
from tinyflux_pl.dashboards.workspaces import WORKSPACES


class Server:
    """W&B's side of the two requests: it keeps views by name."""

    def __init__(self):
        self.views, self.sent = {}, []

    def execute(self, _, query, variables):
        if "mutation" not in query:
            view = self.views.get(variables["viewName"])
            edges = [{"node": view}] if view else []
            return {"project": {"allViews": {"edges": edges}}}
        self.sent.append(variables)
        identity = variables.get("id") or f"view{len(self.views)}"
        self.views[variables["name"]] = {
            "id": identity,
            "displayName": variables["displayName"],
            "spec": variables["spec"],
        }
        return {"upsertView": {"view": {"id": identity, "name": variables["name"]}}}


@pytest.fixture
def server(monkeypatch):
    import wandb
    from wandb_workspaces.workspaces import internal

    server = Server()
    monkeypatch.setattr(internal, "execute_graphql", server.execute)
    address = SimpleNamespace(app_url="https://wandb.invalid")
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(client=address))
    return server


def panels(spec):
    sections = spec["section"]["panelBankConfig"]["sections"]
    return [panel["config"] for section in sections for panel in section["panels"]]


def test_a_second_call_updates_the_existing_workspace(server, capsys):
    command.run(["entity=team", "project=p"])
    command.run(["entity=team", "project=p"])
    first, second = server.sent[:3], server.sent[3:]
    assert [v["displayName"] for v in first] == [
        "TinyFlux: Training",
        "TinyFlux: Sweep comparison",
        "TinyFlux: Experts",
    ]
    assert all("id" not in variables for variables in first)
    assert [v["id"] for v in second] == ["view0", "view1", "view2"] and len(server.views) == 3
    assert {(v["entityName"], v["projectName"], v["type"]) for v in server.sent} == {
        ("team", "p", "project-view")
    }
    assert "TinyFlux: Training: https://wandb.invalid/team/p?nw=" in capsys.readouterr().out


def test_every_panel_reads_catalogued_names(server, capsys):
    command.run(["entity=team", "dry_run=true"])
    assert not server.sent
    text, decoder, specs = capsys.readouterr().out, json.JSONDecoder(), []
    while text.strip():
        request, end = decoder.raw_decode(text)
        specs.append(request["spec"])
        text = text[end:].lstrip()
    assert len(specs) == len(WORKSPACES)
    metrics = [m for spec in specs for p in panels(spec) for m in p.get("metrics", [])]
    media = [m for spec in specs for p in panels(spec) for m in p.get("mediaKeys", [])]
    lost = [m for m in (*metrics, *media) if names.find(m) is None]
    assert len(metrics) > 15 and media and not lost
    expressions = {p["metricRegex"] for spec in specs for p in panels(spec) if "metricRegex" in p}
    samples = {
        "validation/loss_t_0.5",
        "preview/accuracy_colour",
        "train/lune_unweighted",
        "train/gate_vec",
        "train/gradient_norm_double_blocks",
        "train/learning_rate_1",
    }
    for name in samples:
        assert [e for e in expressions if re.fullmatch(e, name)], name


def test_a_sweep_s_workspace_compares_the_chosen_keys_and_filters_its_group(server):
    command.run(["entity=team", "only=sweep", "group=sweep-1", "columns=seed,optimizer/lr"])
    (sent,) = server.sent
    spec = json.loads(sent["spec"])
    columns = next(p["columns"] for p in panels(spec) if "columns" in p)
    assert [c["accessor"] for c in columns] == [
        "config:seed.value",
        "config:optimizer/lr.value",
        "summary:results/validation_loss",
        "summary:results/prompt_accuracy",
        "summary:results/prompt_accuracy_held_out",
    ]
    (run_set,) = spec["section"]["runSets"]
    (group,) = run_set["filters"]["filters"]
    assert (group["key"], group["value"]) == ({"section": "run", "name": "group"}, "sweep-1")


def test_the_error_without_the_wandb_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(MissingDependency, match=r"tinyflux_pl\[dashboards\]"):
        command.run(["entity=team"])


def test_a_request_refused_by_the_server_is_an_error_with_a_cure(server, monkeypatch):
    monkeypatch.setattr(server, "execute", lambda *_: {"project": None})
    from wandb_workspaces.workspaces import internal

    monkeypatch.setattr(internal, "execute_graphql", server.execute)
    with pytest.raises(ConfigError, match="wandb login"):
        command.run(["entity=team", "only=training"])


@pytest.mark.parametrize(
    "words", [[], ["entity="], ["entity=a", "dryrun=true"], ["entity=a", "only=loss"], ["team"]]
)
def test_an_invalid_argument_is_refused(words):
    with pytest.raises(ConfigError):
        command.parse(words)
