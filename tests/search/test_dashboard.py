"""A finished study in optuna-dashboard: the real application answers for our study.db."""

import io
import json

import pytest
from small_task import task

from autoprune.search import storage
from autoprune.search.study import Study
from autoprune.spec.front import front
from autoprune.spec.study import SearchSpec, StudySpec

dashboard = pytest.importorskip("optuna_dashboard")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    spec = StudySpec(
        task="small_task:task",
        device="eyeriss",
        space="channels",
        objectives=("accuracy_drop", "macs"),
        constraints={"macs": "60%"},
        search=SearchSpec(sampler="random", trials=8, seed=0),
    )
    made = Study(task(), spec, tmp_path_factory.mktemp("dashboard") / "run")
    made.run()
    return made


def get(app, path):
    """Ask a WSGI application as a server would."""
    status = []
    environment = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
    }
    answer = app(environment, lambda code, headers, info=None: status.append(code))
    body = b"".join(answer)
    if hasattr(answer, "close"):
        answer.close()
    return status[0], body


def test_the_dashboard_shows_values_and_constraints(study):
    opened = storage.load_existing(None, study.directory)
    app = dashboard.wsgi(opened._storage)
    status, page = get(app, "/dashboard/")
    assert status == "200 OK"
    assert b"<html" in page.lower()
    status, body = get(app, "/api/studies")
    (summary,) = json.loads(body)["study_summaries"]
    assert (summary["study_name"], summary["directions"]) == ("autoprune", ["minimize", "minimize"])
    status, body = get(app, f"/api/studies/{summary['study_id']}")
    assert status == "200 OK"
    detail = json.loads(body)
    assert detail["objective_names"] == ["accuracy_drop", "macs"]
    records = {t.number: t for t in study.records().trials}
    shown = {t["number"]: t for t in detail["trials"]}
    assert {n for n, t in shown.items() if t["state"] == "Complete"} == {
        n for n, t in records.items() if t.state == "complete"
    }
    for number, record in records.items():
        if record.feasible:
            assert shown[number]["values"] == [record.values["accuracy_drop"], record.values["macs"]]
    broken = {n for n, t in records.items() if t.violations}
    assert broken, "a constraint refuses some"
    best = {t["number"] for t in detail["best_trials"]}
    assert {t.number for t in front(study.records())} <= best
    assert not best & broken, "a trial that breaks a constraint is none of its best"
