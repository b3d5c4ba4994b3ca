"""Preferences and Pareto fronts: one model for each preference, what they reach, and how much that covers.

Two quadratic losses of two parameters can't both be zero. The plain sum with weights, STCH and EPO are swept over the
same preferences; a larger preference of a task means a smaller loss of it.

>>> import torch
>>> from motet import methods, pareto
>>> def train(method):
...     x, targets = torch.tensor([0.0, 0.4]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
...     for _ in range(30):
...         rows = x - targets
...         losses = rows.square().sum(1) / 2
...         method.observe(losses)
...         weights = method.weights(losses if method.needs == "losses" else rows @ rows.T)
...         x = x - 0.3 * (weights / weights.sum()).float() @ rows
...     return {"left": losses[0], "right": losses[1]}
>>> weighted = pareto.front(lambda r: train(methods.Preference("sum", r)), preferences=3)
>>> print(weighted.table())
preference     left   right
0.250 0.750   1.125  0.1250
0.500 0.500  0.5000  0.5000
0.750 0.250  0.1250   1.125
<BLANKLINE>
3 of 3 points not dominated
hypervolume 0.6006 to the reference (1.225, 1.225)
>>> exact = pareto.front(lambda r: train(methods.EPO(r)), preferences=3)
>>> [[round(loss, 1) for loss in point] for point in exact.points.tolist()]  # three to one where r is one to three
[[0.8, 0.3], [0.5, 0.5], [0.3, 0.8]]
>>> smooth = pareto.front(lambda r: train(methods.STCH(mu=0.2, warmup=1, preference=r)), preferences=3)
>>> [round(found.hypervolume_to([2.0, 2.0]), 1) for found in (weighted, exact, smooth)]
[2.9, 2.8, 2.9]
"""

from motet.pareto.measures import hypervolume as hypervolume
from motet.pareto.measures import nondominated as nondominated
from motet.pareto.preferences import preferences as preferences
from motet.pareto.sweep import Front as Front
from motet.pareto.sweep import front as front
