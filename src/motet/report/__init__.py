"""The report of a study: one HTML file that needs nothing else, and its figures to use elsewhere."""

from motet.report.figures import affinity_map as affinity_map
from motet.report.figures import cosine_matrices as cosine_matrices
from motet.report.figures import cost as cost
from motet.report.figures import forest as forest
from motet.report.figures import group_timeline as group_timeline
from motet.report.figures import learning_curves as learning_curves
from motet.report.figures import momentum_roles as momentum_roles
from motet.report.figures import weight_streams as weight_streams
from motet.report.page import write as write
