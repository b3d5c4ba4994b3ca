"""Figures of a study: each takes finished results and returns a matplotlib figure, without pyplot."""

from motet.report.figures.cosines import cosine_matrices as cosine_matrices
from motet.report.figures.cost import cost as cost
from motet.report.figures.curves import learning_curves as learning_curves
from motet.report.figures.forest import forest as forest
from motet.report.figures.groups import affinity_map as affinity_map
from motet.report.figures.groups import group_timeline as group_timeline
from motet.report.figures.momentum import momentum_roles as momentum_roles
from motet.report.figures.weights import weight_streams as weight_streams
