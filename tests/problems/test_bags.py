"""A user's bags become a problem, or one error says what is wrong with them."""

import numpy as np
import pandas as pd
import pytest
import torch

from motet.nn.bag import Bag
from motet.problems import Bags, Buckets, Views, write_attention
from motet.problems.bags import check_groups
from motet.problems.views import standardised
from motet.testing import check_problem

ROWS = 60


@pytest.fixture
def study(tmp_path):
    """A table of bags and two folders: patches as .npy, cells as .csv with coordinates."""
    generator = np.random.default_rng(0)
    grade = generator.integers(0, 3, ROWS)
    table = pd.DataFrame(
        {
            "slide": [f"s{n}" for n in range(ROWS)],
            "patient": [f"p{n // 2}" for n in range(ROWS)],
            "grade": np.array(["low", "mid", "high"])[grade],
            "msi": np.where(np.arange(ROWS) % 5 == 4, np.nan, generator.integers(0, 2, ROWS)),
            "age": generator.normal(60, 9, ROWS),
            "sex": generator.choice(["f", "m"], ROWS),
        }
    )
    for n in range(ROWS):
        (tmp_path / "patches").mkdir(exist_ok=True)
        (tmp_path / "cells").mkdir(exist_ok=True)
        np.save(tmp_path / "patches" / f"s{n}.npy", generator.normal(grade[n], 1, (1 + n % 5, 4)))
        cells = pd.DataFrame(generator.normal(size=(2 + n % 3, 5)), columns=["x", "y", "area", "round", "stain"])
        cells.to_csv(tmp_path / "cells" / f"s{n}.csv", index=False)
    return tmp_path, table


def make(study, table=None, targets=("grade", "msi"), **options):
    folder, usual = study
    views = {"patches": folder / "patches", "cells": folder / "cells", "clinic": ["age", "sex"]}
    return Bags(usual if table is None else table, views, targets, **({"bag": "slide", "group": "patient"} | options))


def test_bags_in_three_views_are_a_problem_that_keeps_its_promises(study):
    problem = make(study)
    check_problem(problem)
    inputs = problem.load(0).train.inputs
    assert inputs.widths == {"patches": 4, "cells": 3, "clinic": 3}
    assert inputs.views["cells"].coordinates.shape[1] == 2
    assert any("2-D coordinates" in line for line in problem.describe())


def test_a_file_and_a_table_in_memory_give_the_same(study):
    folder, table = study
    table.to_csv(folder / "bags.csv", index=False)
    one, other = make(study).load(3), make(study, folder / "bags.csv").load(3)
    assert torch.equal(one.test.inputs.views["patches"].x, other.test.inputs.views["patches"].x)
    assert torch.equal(one.test.targets["grade"], other.test.targets["grade"])


@pytest.mark.parametrize("seed", range(4))
def test_no_patient_is_in_two_parts(study, seed):
    _, table = study
    # A column of the view tells the patient: 60 different ages, two a patient.
    table["age"] = [float(name[1:]) for name in table["patient"]]
    data = make(study).load(seed)
    ages = [set(part.inputs.views["clinic"][:, 0].tolist()) for part in (data.train, data.validation, data.test)]
    assert not ages[0] & ages[1] | ages[0] & ages[2] | ages[1] & ages[2]


def test_a_given_split_with_a_patient_in_two_parts_is_refused_by_name(study):
    _, table = study
    part = np.repeat(["train", "validation", "test"], [36, 12, 12])
    data = make(study, table.assign(part=part), part="part").load(5)
    assert [len(p) for p in (data.train, data.validation, data.test)] == [36, 12, 12]
    part[35] = "test"
    with pytest.raises(ValueError, match="'p17' is in the parts train and test"):
        make(study, table.assign(part=part), part="part")
    with pytest.raises(ValueError, match="holds 'dev', and a part is train, validation, test"):
        make(study, table.assign(part="dev"), part="part")


def test_check_groups_passes_and_names():
    check_groups(["a", "a", "b", "c"], (np.array([0, 1]), np.array([2]), np.array([3])))
    with pytest.raises(ValueError, match="'a' is in the parts train and validation"):
        check_groups(["a", "a", "b"], (np.array([0]), np.array([1]), np.array([2])))


def test_bags_that_lack_a_view_are_allowed_when_said(study):
    folder, table = study
    (folder / "patches" / "s3.npy").unlink()
    np.save(folder / "patches" / "s4.npy", np.zeros((0, 4)))
    table.loc[7, ["age", "sex"]] = None
    with pytest.raises(ValueError, match=r"'patches' has no file for bag 's3' .* or say gaps=True"):
        make(study)
    problem = make(study, gaps=True)
    check_problem(problem)
    data = problem.load(0)
    parts = [part.inputs for part in (data.train, data.validation, data.test)]
    assert sum(int(part.missing("patches").sum()) for part in parts) == 2
    assert sum(int(part.missing("clinic").sum()) for part in parts) == 1


def spoil(path, kind):
    good = np.load(path)
    if kind == "nan":
        good[0, 2] = np.nan
        np.save(path, good)
    elif kind == "width":
        np.save(path, good[:, :3])
    elif kind == "empty":
        np.save(path, good[:0])
    elif kind == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif kind == "flat":
        np.save(path, good[0])
    elif kind == "damaged":
        path.write_bytes(b"no array")
    elif kind == "two":
        np.savez(path.with_suffix(".npz"), features=good)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("nan", r"bag 's5' of view 'patches' .* has nan in instance 1, feature 3"),
        ("width", "bag 's5' of view 'patches' has 3 features, and bag 's0' has 4"),
        ("empty", "bag 's5' has no instances or values in view 'patches'"),
        ("pickle", "bag 's5' of view 'patches' .* can't be read: .*Object arrays cannot be loaded"),
        ("flat", r"bag 's5' .* must hold features as \(instances, columns\), not \(4,\)"),
        ("damaged", "bag 's5' .* can't be read"),
        ("two", "has s5.npy and s5.npz for bag 's5'"),
    ],
)
def test_a_bad_file_is_named_with_its_bag(study, kind, fault):
    spoil(study[0] / "patches" / "s5.npy", kind)
    with pytest.raises(ValueError, match=fault):
        make(study)


def test_other_columns_in_one_file_are_named(study):
    path = study[0] / "cells" / "s8.csv"
    pd.read_csv(path).rename(columns={"stain": "colour"}).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"bag 's8' of view 'cells' has 3 features \('colour'\), and bag 's0'"):
        make(study)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: pd.concat([t, t.iloc[[9]]]), "bag 's9' is in rows 10, 61 of the table"),
        (
            lambda t: pd.concat([t, t.iloc[[9]].assign(grade="other")]),
            "bag 's9' has two labels of 'grade', .*'other'",
        ),
        (lambda t: t.assign(slide=t["slide"].where(t.index != 2)), "bag column 'slide' is empty in row 3"),
        (lambda t: t.assign(patient=t["patient"].where(t.index != 2)), "group column 'patient' is empty in row 3"),
        (lambda t: t.assign(slide=t["slide"].replace("s1", "../s1")), r"bag '\.\./s1' can't be the name of a file"),
        (lambda t: t.iloc[:20], "the table has 20 bags with a label"),
        (lambda t: t.drop(columns="slide"), "no column 'slide' for the bags"),
    ],
)
def test_a_bad_table_is_refused_with_the_reason(study, change, fault):
    with pytest.raises(ValueError, match=fault):
        make(study, change(study[1]))


def test_a_target_can_not_be_in_a_view(study):
    with pytest.raises(ValueError, match="column 'age' can't be in view 'clinic': it is a target"):
        make(study, targets=["age:regression"])


def test_buckets_hold_every_bag_once_within_the_budget_and_waste_less_than_random_batches():
    sizes = (torch.rand(300, generator=torch.Generator().manual_seed(0)) * 7).exp().long()
    buckets = Buckets(sizes, budget=1500, most=32, seed=3)
    batches = buckets.batches(0)
    assert torch.cat(batches).sort().values.tolist() == list(range(300))
    padded = [len(batch) * int(sizes[batch].max()) for batch in batches]
    assert all(cells <= 1500 or len(batch) == 1 for cells, batch in zip(padded, batches, strict=True))
    assert max(map(len, batches)) <= 32
    assert sum(padded) < 2 * int(sizes.sum())


def test_buckets_are_the_same_for_a_seed_and_epoch_and_new_every_epoch():
    def drawn(seed, epoch):
        return [batch.tolist() for batch in Buckets(torch.arange(50), 100, seed=seed).batches(epoch)]

    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)
    buckets = Buckets(torch.arange(50), 100, seed=1)
    passes = [[batch.tolist() for batch in buckets] for _ in range(3)]
    assert passes[2] == drawn(1, 2)


@pytest.mark.parametrize("options", [{"sizes": [-1], "budget": 5}, {"sizes": [1], "budget": 0}])
def test_buckets_refuse_what_makes_no_sense(options):
    with pytest.raises(ValueError, match="Buckets: "):
        Buckets(**options)


@pytest.mark.parametrize("form", ["list", "flat", "padded"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_attention_is_written_a_file_a_bag_and_read_back(tmp_path, form, kind):
    weights = [torch.tensor([0.25, 0.75]), torch.tensor([1.0])]
    points = [torch.tensor([[0.0, 1], [2, 3]]), torch.tensor([[4.0, 5]])]
    options = {}
    attention, where = weights, points
    if form == "flat":
        attention, where, options = torch.cat(weights), torch.cat(points), {"offsets": torch.tensor([0, 2, 3])}
    elif form == "padded":
        attention = torch.nn.utils.rnn.pad_sequence(weights, batch_first=True)
        where = torch.nn.utils.rnn.pad_sequence(points, batch_first=True)
        options = {"mask": torch.tensor([[True, True], [True, False]])}
    files = write_attention(tmp_path / "maps", ["a", "b"], attention, where, format=kind, **options)
    read = pd.read_csv if kind == "csv" else pd.read_parquet
    assert [file.name for file in files] == [f"a.{kind}", f"b.{kind}"]
    first, second = map(read, files)
    assert first.to_dict("list") == {"instance": [0, 1], "x": [0, 2], "y": [1, 3], "weight": [0.25, 0.75]}
    assert second["weight"].tolist() == [1]


def test_attention_that_fits_no_bag_is_refused(tmp_path):
    with pytest.raises(ValueError, match="attention must be for 2 bags, not 1"):
        write_attention(tmp_path, ["a", "b"], [torch.ones(1)])
    with pytest.raises(ValueError, match="'../a' can't be the name of a file"):
        write_attention(tmp_path, ["../a"], [torch.ones(1)])
    with pytest.raises(ValueError, match="'a' is named twice"):
        write_attention(tmp_path, ["a", "a"], [torch.ones(1)] * 2)


def views():
    vector = torch.tensor([[1.0, 2], [torch.nan, torch.nan], [5, 6]])
    return Views({"vector": vector, "bag": Bag.of([torch.ones(2, 1), torch.zeros(0, 1), 3 * torch.ones(1, 1)])})


def test_views_pick_rows_in_every_view():
    for rows in (torch.tensor([2, 1]), torch.tensor([False, True, True]), slice(1, 3)):
        picked = views()[rows]
        assert len(picked) == 2
        assert sorted(picked.views["bag"].sizes.tolist()) == [0, 1]
        assert picked.missing("vector").sum() == picked.missing("bag").sum() == 1
    with pytest.raises(TypeError):
        iter(views())
    assert views().to("cpu").device == torch.device("cpu")


def test_views_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"same rows, and they have 2 \('a'\), 3 \('b'\)"):
        Views({"a": torch.ones(2, 1), "b": torch.ones(3, 1)})
    with pytest.raises(ValueError, match="at least one view"):
        Views({})
    with pytest.raises(ValueError, match=r"view 'a' must be \(N, D\), or a Bag"):
        Views({"a": torch.ones(2)})


def test_scales_come_from_the_training_rows_that_have_the_view():
    ready = standardised(views(), torch.tensor([0, 1, 2]))
    assert ready.views["vector"][[0, 2], 0].tolist() == [-1, 1]
    assert ready.views["vector"][1].isnan().all()
    torch.testing.assert_close(ready.views["bag"].x.mean(), torch.tensor(0.0))
    first = standardised(views(), torch.tensor([0]))
    assert (first.views["vector"] == 0).sum() == 4  # constant in training
    with pytest.raises(ValueError, match="no training row has the view 'vector'"):
        standardised(views(), torch.tensor([1]))


def test_a_missing_view_reaches_the_encoder_as_a_learned_vector_with_finite_gradients(study):
    problem = make(study)
    data = problem.load(0)
    model = problem.model(data, 0)
    inputs = data.train.inputs
    gone = Views(inputs.views | {"clinic": torch.full_like(inputs.views["clinic"], torch.nan)})
    features, _ = model(gone)
    features.sum().backward()
    assert features.isfinite().all()
    grads = {name: p.grad for name, p in model.trunk.named_parameters() if p.grad is not None}
    assert all(grad.isfinite().all() for grad in grads.values())
    assert grads["null"][2].any()


@pytest.mark.parametrize(
    "write",
    [
        lambda name, n: name.upper() if n % 2 else name,
        lambda name, n: f" {name} " if n % 2 else name,
        lambda name, n: int(name[1:]) if n % 2 else name[1:],
    ],
)
def test_a_patient_whose_name_is_typed_in_two_ways_is_one_patient(study, write):
    _, table = study
    typed = table.assign(patient=[write(name, n) for n, name in enumerate(table.patient)])
    one, other = make(study).load(0), make(study, typed).load(0)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(one, part).inputs.views["patches"].x, getattr(other, part).inputs.views["patches"].x)
    parts = np.where(np.arange(ROWS) % 2, "train", np.where(np.arange(ROWS) < 30, "validation", "test"))
    with pytest.raises(ValueError, match="is in the parts"):
        make(study, typed.assign(part=parts), part="part")


def test_bags_named_by_numbers_with_leading_zeros_find_their_files(study):
    folder, table = study
    for n in range(ROWS):
        (folder / "patches" / f"s{n}.npy").rename(folder / "patches" / f"{n:03d}.npy")
    table.assign(slide=[f"{n:03d}" for n in range(ROWS)]).to_csv(folder / "bags.csv", index=False)
    problem = Bags(folder / "bags.csv", {"patches": folder / "patches"}, ["grade"], bag="slide", group="patient")
    assert problem.load(0).train.inputs.widths == {"patches": 4}


@pytest.mark.parametrize(
    ("rename", "fault"),
    [
        ({"area": "grade"}, "column 'grade', which the table has as a target"),
        ({"area": "Unnamed: 0"}, "a column without a name"),
        ({"x": "X", "y": "Y"}, "column 'X': is it a coordinate"),
    ],
)
def test_columns_of_instances_that_are_no_features_are_refused(study, rename, fault):
    folder, _ = study
    for file in (folder / "cells").glob("*.csv"):
        pd.read_csv(file).rename(columns=rename).to_csv(file, index=False)
    with pytest.raises(ValueError, match=fault):
        make(study)
