"""Conformance checks: whoever adds a method, a route or a problem runs the one for it."""

from motet.testing.problems import check_problem as check_problem
