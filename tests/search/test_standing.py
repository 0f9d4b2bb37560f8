"""Where a study stands, read from outside: while it runs, after it was killed, when it is done."""

import pytest
from stub_study import StubRunner, make

from autoprune.errors import RunDirectoryError
from autoprune.search import study as study_module
from autoprune.search.standing import standing_of


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    monkeypatch.setattr(study_module, "TrialRunner", StubRunner)


def test_a_study_is_looked_at_while_it_runs_and_after(tmp_path):
    study = make(tmp_path, trials=8)
    seen = []

    def behave(runs):
        if runs == 3:
            seen.append(standing_of(tmp_path))
        if runs == 4:
            raise ValueError("boom")
        if runs == 6:
            raise KeyboardInterrupt

    study.runner.behave = behave
    study.run()
    during, after = seen[0], standing_of(tmp_path)
    assert (during.finished, during.in_flight, during.searching) == (3, 1, True)
    assert during.states == {"complete": 3}
    assert (after.finished, after.in_flight, after.searching) == (6, 0, False)
    assert after.states == {"complete": 5, "failed": 1}
    assert after.queued >= 1, "what was in flight waits to be run again"
    make(tmp_path, trials=8).run()
    done = standing_of(tmp_path)
    assert (done.finished, done.wanted, done.queued) == (8, 8, 0)
    assert done.hypervolume == pytest.approx(max(done.hypervolume, during.hypervolume))
    assert done.last


def test_a_directory_without_a_search_is_told(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"holds no study\.yaml; give the directory of a run"):
        standing_of(tmp_path)
