"""Loggers: what TensorBoard and MLflow read back is what was trained."""

import sys
from dataclasses import replace

import pytest

from motet.study import loggers
from motet.study.study import Study
from tests.study.tiny import TINY


@pytest.fixture
def study(tmp_path):
    def run(*names: str, **options) -> Study:
        told = loggers.chosen(names)
        study = Study(TINY, [], 1, out=tmp_path / "runs", training=replace(TINY.training, epochs=2), loggers=told)
        study.run()
        for logger in told:
            logger.close()
        return study

    return run


def of_sum(study):
    return next(run for run in study.runs() if run.arm == "sum")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of tensorboard's own imports.
def test_tensorboard_reads_back_every_epoch_and_the_result(study):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = study("tensorboard")
    run = of_sum(done)
    read = accumulator.EventAccumulator(str(done.folder / "tensorboard" / "sum-seed0"))
    read.Reload()
    for task, metric in (("dose", "mae"), ("ill", "accuracy"), ("grade", "accuracy")):
        found = [(event.step, event.value) for event in read.Scalars(f"{task}/{metric}")]
        assert found == [(row.epoch, pytest.approx(row.validation[task], rel=1e-6)) for row in run.curve]
        found = [event.value for event in read.Scalars(f"loss/{task}")]
        assert found == pytest.approx([row.train_loss[task] for row in run.curve], rel=1e-6)
        assert read.Scalars(f"test/{task}/{metric}")[0].value == pytest.approx(run.test[task], rel=1e-6)
    assert len(read.Scalars("gain/validation")) == 2
    single = accumulator.EventAccumulator(str(done.folder / "tensorboard" / "stl-seed0"))
    single.Reload()
    assert "dose/mae" in single.Tags()["scalars"]
    assert "gain/validation" not in single.Tags()["scalars"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of MLflow's own use of SQLAlchemy.
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # MLflow keeps its connections until the process ends.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_mlflow_reads_back_every_epoch_settings_and_the_result(study, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run = of_sum(study("mlflow"))
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert sorted(each.data.tags["arm"] for each in found) == ["stl", "sum"]
    assert {each.info.status for each in found} == {"FINISHED"}
    there = next(each for each in found if each.data.tags["arm"] == "sum")
    assert there.data.params["learning_rate"] == "0.001"
    assert there.data.params["seed"] == "0"
    history = [(m.step, m.value) for m in client.get_metric_history(there.info.run_id, "dose/mae")]
    assert sorted(history) == [(row.epoch, pytest.approx(row.validation["dose"])) for row in run.curve]
    assert there.data.metrics["test/ill/accuracy"] == pytest.approx(run.test["ill"])


class Recorder:
    """Stands for MLflow's client."""

    def __init__(self, **_):
        self.ended = []

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return "1"

    def create_run(self, number, run_name, tags):
        info = type("Info", (), {"run_id": run_name})
        return type("Made", (), {"info": info})

    def log_param(self, *_):
        pass

    def set_terminated(self, identity, status):
        self.ended.append((identity, status))


def test_runs_that_overlap_are_told_apart_and_interrupted_ones_are_marked(study, monkeypatch):
    pytest.importorskip("mlflow")
    done = study()
    client = Recorder()
    monkeypatch.setattr(loggers, "_client", lambda: lambda **_: client)
    (logger,) = loggers.chosen(["mlflow", "mlflow"])
    client.log_metric = lambda *_, **__: None
    logger.start(done.folder, "stl", 0, {"dose": {"learning_rate": 0.1}})
    logger.start(done.folder, "sum", 0, {})
    logger.end(of_sum(done))
    logger.close()
    assert client.ended == [("sum seed 0", "FINISHED"), ("stl seed 0", "KILLED")]
    logger.close()
    assert len(client.ended) == 2


def test_a_server_that_goes_away_ends_the_records_with_one_warning_and_not_the_study(study, monkeypatch, caplog):
    exceptions = pytest.importorskip("mlflow.exceptions")
    client = Recorder()
    calls = []

    def gone(*_, **__):
        calls.append("metric")
        raise exceptions.MlflowException("connection refused")

    client.log_metric = gone
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@here:1")
    monkeypatch.setattr(loggers, "_client", lambda: lambda **_: client)
    assert len(study("mlflow").runs()) == 2
    assert calls == ["metric"]
    (said,) = [record.message for record in caplog.records if "MLflow" in record.message]
    assert "http://ann:***@here:1 (connection refused) any more: the study goes on" in said


def test_settings_of_single_task_models_stand_side_by_side():
    found = loggers._flat({"a": {"learning_rate": 0.1}, "b": {"learning_rate": 0.2}, "trials": 4})
    assert found == {"a.learning_rate": 0.1, "b.learning_rate": 0.2, "trials": 4}


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")])
def test_a_logger_that_is_not_installed_names_its_extra(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"--log {name} needs {name}.*pip install motet\[{name}\]"):
        loggers.chosen([name])


def test_an_unknown_logger_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no logger 'tensorbord': did you mean 'tensorboard'"):
        loggers.check(["tensorbord"])
    with pytest.raises(ValueError, match="there are tensorboard and mlflow"):
        loggers.check(["wandb"])
