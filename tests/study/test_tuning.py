"""Every arm is tuned alike, on training and validation data alone, and to the same end however it got there."""

import math
import time
from dataclasses import asdict, replace
from json import dumps, loads

import optuna
import pytest
import torch

from motet import problems
from motet.problems.base import Data, Problem, Split, Task
from motet.study.arms import parse, parse_all
from motet.study.files import StoreError
from motet.study.plans import Followed
from motet.study.results import Tuning
from motet.study.spaces import OWN, Space
from motet.study.training import train
from motet.study.trials import JOURNAL, Median, open_storage
from motet.study.trying import blind
from motet.study.tuned import SHARED
from motet.study.tuning import tune
from motet.study.typed import build
from tests.study.tiny import TINY

ARMS = parse_all(["sum:tuned", "fair-grad"])
FEW = parse_all([])
TRIALS = Tuning(trials=6, epochs=3)


def run(folder, arms=ARMS, tuning=TRIALS, problem=TINY, data=None, **options):
    options = {"storage": None, "name": "here"} | options
    data = problem.load(tuning.seed) if data is None else data
    return tune(problem, data, arms, problem.training, tuning, folder=folder, **options)


def few(found):
    return {arm.label: found[arm.label] for arm in FEW}


def trials_of(folder, arm, storage=None):
    return optuna.load_study(study_name=f"here/{arm}", storage=open_storage(storage, folder, mend=False))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, ticks, done = tmp_path_factory.mktemp("whole"), [], []
    found = run(folder, tick=ticks.append, finished=lambda *trial: done.append(trial))
    return folder, found, ticks, done


def test_every_arm_gets_as_many_trials_at_the_same_points(whole):
    folder, found, ticks, done = whole
    assert sorted(done) == sorted((arm.label, trial) for arm in ARMS for trial in range(6))
    common = ["learning_rate", "weight_decay", "dropout"]
    points = [
        [[trial.params[name] for name in common] for trial in trials_of(folder, arm.label).trials] for arm in ARMS
    ]
    assert points[0] == points[1] == points[2] == points[3]
    assert points[0][0] == [TINY.training.learning_rate, 0.0, 0.2]  # The study's own.
    assert len({tuple(point) for point in points[0]}) == 6
    assert all(tuned.trials == 6 for tuned in found.values())
    assert sum(tuned.epochs for tuned in found.values() if tuned.arm != "stl") == sum(
        tick.arm != "stl" for tick in ticks
    )


def test_the_points_of_a_short_search_are_the_first_of_a_long_one():
    def rates(trials):
        return [
            point.learning_rate for point in Space(parse("sum"), TINY.training, Tuning(trials, 3), ("a",)).points({})
        ]

    assert rates(40)[:6] == rates(6)
    inside = rates(40)[1:]
    assert 1e-4 <= min(inside) < 2e-4
    assert 5e-3 < max(inside) <= 1e-2


def test_the_best_score_is_chosen_and_single_task_models_choose_for_themselves(whole):
    folder, found, *_ = whole
    scores = {arm.label: [t.user_attrs["scores"] for t in trials_of(folder, arm.label).trials] for arm in ARMS}
    for label in ("sum", "sum:tuned", "fair-grad"):
        values = [score[SHARED] for score in scores[label]]
        assert found[label].best[SHARED].trial == values.index(max(values))
    for task, choice in found["stl"].best.items():
        values = [score[task] for score in scores["stl"]]
        assert choice.trial == values.index(max(values))
        assert choice.score == max(values)


def test_what_was_chosen_can_be_kept_and_trained_with(whole):
    _, found, *_ = whole
    for tuned in found.values():
        assert build(type(tuned), loads(dumps(asdict(tuned)))) == tuned
        dumps(tuned.settings(), allow_nan=False)
    arm, training = parse("stl").tuned(found["stl"], TINY.training)
    one = train(TINY, TINY.load(0), arm, 0, training).run
    best = found["stl"].best
    assert {task: training[task].learning_rate for task in training} == {
        task: choice.point.learning_rate for task, choice in best.items()
    }
    assert found["stl"].settings()["tasks"]["dose"]["trial"] == best["dose"].trial
    # On the seed that was tuned on, this is the trial itself.
    assert -one.validation["dose"] == best["dose"].score
    tuned, training = parse("fair-grad").tuned(found["fair-grad"], TINY.training)
    assert tuned.label == "fair-grad"
    assert dict(tuned.options) == {"alpha": found["fair-grad"].settings()["options"]["fair-grad.alpha"]}
    again = train(TINY, TINY.load(0), tuned, 0, training, one.validation).run
    assert again.validation["dose"] > 0


def test_a_search_of_one_trial_changes_nothing(tmp_path):
    found = run(tmp_path, tuning=Tuning(1, 3))
    data, reference = TINY.load(1), None
    for arm in ARMS:
        tuned, training = arm.tuned(found[arm.label], TINY.training)
        plain = parse("sum") if arm.label == "sum:tuned" else arm
        there = train(TINY, data, tuned, 1, training, reference)
        here = train(TINY, data, plain, 1, TINY.training, reference)
        assert there.run.test == here.run.test
        assert all(torch.equal(there.parameters[name], here.parameters[name]) for name in here.parameters)
        reference = here.run.validation if arm.label == "stl" else reference


def test_an_interrupted_search_goes_on_to_the_same_end(tmp_path, whole):
    ticks = []

    def interrupt(tick):
        ticks.append(tick)
        if len(ticks) == 41:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tick=interrupt)
    before = len(ticks)
    assert run(tmp_path, tick=ticks.append) == whole[1]
    # The trial that was interrupted is trained once more, and no other.
    assert before < len(ticks) <= len(whole[2]) + 9


def test_what_a_kill_leaves_behind_is_cleared_away(tmp_path, whole):
    class Killed(BaseException):
        pass

    def kill(tick):
        if tick.arm == "sum":
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("motet.study.trials.Trials.abandon", lambda *_: None)  # As if there had been no time for it.
        with pytest.raises(Killed):
            run(tmp_path, arms=FEW, tick=kill)
    assert trials_of(tmp_path, "sum").trials[0].state.name == "RUNNING"
    (tmp_path / f"{JOURNAL}.lock").touch()
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"op_code":7,"wor')
    assert run(tmp_path, arms=FEW) == few(whole[1])


def test_a_trial_that_was_lost_between_claim_and_training_is_given_to_another(tmp_path, monkeypatch):
    storage = f"sqlite:///{tmp_path / 'trials.sqlite'}"

    class Killed(BaseException):
        pass

    def begin(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("motet.study.trials.Trials.begin", begin)
        with pytest.raises(Killed):
            run(tmp_path, arms=FEW, storage=storage)
    monkeypatch.setattr("motet.study.trials.STALE", 1)
    time.sleep(2.1)
    found = run(tmp_path, arms=FEW, storage=storage)
    states = [trial.state.name for trial in trials_of(tmp_path, "stl", storage).trials]
    assert sorted(states) == ["COMPLETE"] * 6 + ["FAIL"]
    assert set(found) == {"stl", "sum"}


def test_two_processes_find_what_one_does(tmp_path, whole):
    ticks = []
    assert run(tmp_path, arms=FEW, workers=2, tick=ticks.append) == few(whole[1])
    assert {tick.arm for tick in ticks} == {"stl", "sum"}


def test_a_database_gives_what_the_file_gives(tmp_path, whole):
    storage = f"sqlite:///{tmp_path}/trials.db"
    assert run(tmp_path, storage=storage) == whole[1]
    assert not (tmp_path / JOURNAL).exists()
    done = []
    assert run(tmp_path, storage=storage, finished=lambda *trial: done.append(trial)) == whole[1]
    assert len(done) == 24


def test_the_storage_holds_what_a_dashboard_shows(whole):
    frame = trials_of(whole[0], "sum:tuned").trials_dataframe()
    assert list(frame["user_attrs_point"]) == list(range(6))
    assert set(frame["state"]) <= {"COMPLETE", "PRUNED"}
    wanted = ["value", "params_learning_rate", "params_weight_decay", "params_dropout", "params_weight.ill"]
    assert not frame[[*wanted, "datetime_start", "datetime_complete", "user_attrs_epochs"]].isna().any().any()
    trial = trials_of(whole[0], "sum").trials[0]
    assert list(trial.intermediate_values) == [1, 2, 3]


def test_the_test_part_is_never_looked_at(tmp_path, whole):
    data = TINY.load(0)
    poison = {task: torch.full_like(values, -7) for task, values in data.test.targets.items()}
    spoilt = replace(data, test=Split(torch.full_like(data.test.inputs, torch.nan), poison))
    assert run(tmp_path, arms=FEW, data=spoilt) == few(whole[1])


def test_later_trials_are_pruned_below_the_median_of_the_first():
    study = optuna.create_study(direction="maximize", pruner=Median(first=3, warmup=1))

    def trial(point, values, done=True):
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE if done else optuna.trial.TrialState.RUNNING,
                value=0.0 if done else None,
                intermediate_values=dict(enumerate(values, start=1)),
                user_attrs={"point": point} | ({"scores": {}} if done else {}),
            )
        )
        return study.trials[-1]

    for point, values in enumerate(([1.0, 5.0], [2.0, 1.0, 4.0], [9.0])):
        trial(point, values)
    # Best so far of the first three: 1, 2, 9, then 5, 2, 9, then 5, 4, 9.
    judge = study.pruner
    assert not judge.prune(study, trial(3, [-9.0], done=False))  # The first epoch is warm-up.
    assert judge.prune(study, trial(4, [-9.0, 4.9], done=False))
    assert not judge.prune(study, trial(5, [-9.0, 5.0], done=False))
    assert not judge.prune(study, trial(6, [5.0, -9.0, -9.0], done=False))
    assert not judge.prune(study, trial(2, [-9.0, -9.0], done=False))


def test_single_task_models_and_the_first_trials_are_not_pruned(whole):
    states = {arm.label: [trial.state.name for trial in trials_of(whole[0], arm.label).trials] for arm in ARMS}
    assert set(states["stl"]) == {"COMPLETE"}
    assert all(set(state[:4]) == {"COMPLETE"} for state in states.values())


def test_weights_lie_on_the_simplex():
    space = Space(parse("sum:tuned"), TINY.training, Tuning(32, 3), tuple("abcde"))
    weights = [point.weights for point in space.points({})]
    assert weights[0] == (1.0,) * 5
    for chosen in weights:
        assert math.fsum(chosen) / 5 == pytest.approx(1)
        assert min(chosen) > 0
    # No task is favoured: each is the heaviest one in some.
    assert {chosen.index(max(chosen)) for chosen in weights[1:]} == set(range(5))


def test_a_population_of_weights_gathers_around_the_best():
    tasks = tuple("abcdefgh")
    space = Space(parse("sum:tuned"), TINY.training, Tuning(64, 3), tasks)

    def search():
        scores = {}
        while len(scores) < 64:
            points = space.points(scores)
            assert len(points) % space.generation == 0
            # The best weight of the first task is 4.
            scores |= {i: -abs(math.log(p.weights[0] / 4)) for i, p in enumerate(points) if i not in scores}
        return space.points(scores), scores

    points, scores = search()
    assert search()[0] == points
    assert points[0].weights == (1.0,) * 8
    assert all(math.fsum(point.weights) / 8 == pytest.approx(1) for point in points)
    mean = [sum(scores[i] for i in range(start, start + 16)) / 16 for start in (0, 16, 32, 48)]
    assert mean[0] < mean[1] < mean[3]


def test_many_tasks_are_tuned_to_the_same_end_after_an_interruption(tmp_path):
    tasks = tuple(Task(f"t{k}", "regression", "mae") for k in range(6))

    def load(seed):
        generator = torch.Generator().manual_seed(seed)

        def split(rows):
            x = torch.randn(rows, 3, generator=generator)
            return Split(x, {task.name: x[:, k % 3] * (k + 1) for k, task in enumerate(tasks)})

        return Data(tasks, split(32), split(16), split(16))

    six = Problem("six", "six", "", load, training=TINY.training)
    arms, tuning = parse_all(["sum:tuned"]), Tuning(6, 1)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    found = run(tmp_path / "a", arms, tuning, six)
    seen = []

    def interrupt(tick):
        seen.append(tick.arm)
        if seen.count("sum:tuned") == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", arms, tuning, six, tick=interrupt)
    assert run(tmp_path / "b", arms, tuning, six) == found
    points = Space(arms[2], six.training, tuning, tuple(task.name for task in tasks))
    assert len(points.points({})) == 4


def test_tuned_weights_beat_equal_ones_where_losses_end_apart(tmp_path):
    problem = problems.get("planted-scale")
    problem = replace(problem, training=replace(problem.training, epochs=12, learning_rate=2e-2))
    # One learning rate, so that the weights alone differ.
    tuning = Tuning(8, 12, learning_rate=(2e-2, 2e-2), weight_decay=(0.0,), dropout=(0.0,))
    found = run(tmp_path, parse_all(["sum:tuned"]), tuning, problem)
    equal, weighted = found["sum"].best[SHARED], found["sum:tuned"].best[SHARED]
    assert weighted.score > equal.score + 0.02
    # What was found on the validation part holds on the test part.
    data, reference, test = problem.load(0), None, {}
    for arm in parse_all(["sum:tuned"]):
        tuned, training = arm.tuned(found[arm.label], problem.training)
        result = train(problem, data, tuned, 0, training, reference).run
        reference, test[arm.label] = reference or result.validation, result.test
    gain = [test["sum:tuned"][task] / test["sum"][task] for task in test["sum"]]
    assert sum(gain) / 4 < 0.98


def test_the_tuned_sum_is_an_arm_that_must_be_tuned():
    arm = parse("Muon+sum:Tuned")
    assert arm.label == "muon+sum:tuned"
    assert arm.needs_tuning
    assert not parse("sum").needs_tuning
    with pytest.raises(ValueError, match="has no weights yet"):
        arm.balancer(("a", "b"), 0)
    with pytest.raises(ValueError, match="takes no wrapper"):
        parse("log+sum:tuned")


def test_what_an_arm_says_of_itself_is_not_searched():
    def keys(text):
        return set(Space(parse(text), TINY.training, TRIALS, ("a", "b")).ranges)

    common = {"learning_rate", "weight_decay", "dropout"}
    assert keys("fair-grad") == common | {"fair-grad.alpha"}
    assert keys("fair-grad:alpha=1") == common
    assert keys("adamw(lr=0.01)+sum") == {"weight_decay", "dropout"}
    assert keys("apt-adamw+groups") == common | {"apt-adamw.beta_min", "groups.decay"}
    point = Space(parse("adamw(lr=0.01)+sum"), TINY.training, TRIALS, ("a", "b")).points({})[3]
    assert point.learning_rate == 0.01


@pytest.mark.parametrize("name", sorted(OWN))
def test_an_arm_can_be_made_of_every_value_that_is_searched(name):
    text = {"umda": "umda+sum", "apt-adamw": "apt-adamw+sum", "apt-muon": "apt-muon+sum"}.get(name, name)
    space = Space(parse(text), TINY.training, Tuning(32, 3), ("a", "b"))
    assert any(key.startswith(f"{name}.") for key in space.ranges)
    for point in space.points({}):
        arm = space.arm.at(point)
        assert arm.label == text
        data = TINY.load(0)
        training = replace(TINY.training, depth=2)
        model = arm.model(TINY, data, 0, training)
        arm.stepper([task.name for task in data.tasks], 0, model, arm.optimizer.make(model, training))


def test_a_control_takes_the_number_of_groups_of_the_best_trial(tmp_path):
    found = run(tmp_path, parse_all(["sum:steps=groups"]), Tuning(2, 1))
    assert list(found) == ["stl", "sum", "groups", "sum:steps=groups"]
    assert parse("sum:steps=groups").settled(Followed(3, 2)).plan.times == 3


def test_a_trial_that_breaks_down_is_the_worst_and_the_search_goes_on(tmp_path):
    # Trial 0 has the study's own learning rate, and every other one breaks down.
    found = run(tmp_path, FEW, Tuning(3, 3, learning_rate=(1e30, 1e35)))
    assert found["sum"].best[SHARED].trial == 0
    assert {choice.trial for choice in found["stl"].best.values()} == {0}
    trial = trials_of(tmp_path, "sum").trials[1]
    assert trial.state.name == "FAIL"
    assert "not finite" in trial.user_attrs["broke down"][SHARED]


def test_an_arm_whose_every_trial_breaks_down_is_named(tmp_path):
    wild = replace(TINY, training=replace(TINY.training, learning_rate=1e33))
    with pytest.raises(
        ValueError, match="every trial of task 'dose' of arm 'stl' broke down .* smaller learning rates"
    ):
        run(tmp_path, FEW, Tuning(2, 3, learning_rate=(1e30, 1e35)), wild)


def test_trials_of_other_settings_are_not_taken_for_these(tmp_path):
    run(tmp_path, FEW, Tuning(1, 1))
    with pytest.raises(StoreError, match="other settings or other data"):
        run(tmp_path, FEW, Tuning(2, 1))
    with pytest.raises(StoreError, match="other settings or other data"):
        run(tmp_path, FEW, Tuning(1, 1), data=TINY.load(5))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite:////nowhere/at/all.db", "unable to open"),
        ("postgresql://me:secret@127.0.0.1:1/trials", "postgresql://me:***@127.0.0.1:1/trials, can't be used"),
    ],
)
def test_a_storage_that_can_not_be_used_is_named_without_its_password(tmp_path, url, why):
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="storage") as caught:
        open_storage(url, tmp_path, mend=False)
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"trials": 0}, "trials must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rate": (1e-2, 1e-4)}, "learning_rate must be a range"),
        ({"weight_decay": ()}, "weight_decay must be values"),
        ({"dropout": (1.0,)}, "dropout must be values in"),
    ],
)
def test_a_search_that_can_not_be_is_refused(tmp_path, change, why):
    with pytest.raises(ValueError, match=why):
        run(tmp_path, FEW, replace(TRIALS, **change))


def test_blind_data_have_no_test_part():
    data = TINY.load(0)
    assert blind(data).test is data.validation
