"""Conformance checks: whoever adds a method, a route or a problem runs the one for it."""

from motet.testing.method_report import MethodReport as MethodReport
from motet.testing.methods import check_method as check_method
from motet.testing.problems import check_problem as check_problem
