"""The small convex problems that methods solve on the K×K Gram matrix: float64 torch, on its device.

Every solver works on the unit-diagonal form (`unit_diagonal`), so that multiplying all gradients, or one
task's, by a constant costs no accuracy. It takes any number of matrices at once, (…, K, K), and returns
``(weights, converged)``, (…, K) and (…) bool. A Gram matrix that is not finite gives NaN and False, and leaves the
others alone; nothing here raises.
"""

from motet.solvers.conflict_averse import conflict_averse as conflict_averse
from motet.solvers.dual_cone import project_on_dual_cone as project_on_dual_cone
from motet.solvers.fair import fair_fixed_point as fair_fixed_point
from motet.solvers.min_norm import min_norm_point as min_norm_point
from motet.solvers.unit_diagonal import unit_diagonal as unit_diagonal
