"""Routes: how the tasks' gradients are had, as cheaply as the method allows."""

from motet.routes.auto import ROUTES as ROUTES
from motet.routes.auto import RouteName as RouteName
from motet.routes.auto import Wish as Wish
from motet.routes.auto import choose as choose
from motet.routes.base import NoPathError as NoPathError
from motet.routes.base import TaskGradients as TaskGradients
from motet.routes.cost import Work as Work
from motet.routes.cost import measure as measure
from motet.routes.disjoint import Disjoint as Disjoint
from motet.routes.disjoint import Layouts as Layouts
from motet.routes.disjoint import infer_assignment as infer_assignment
from motet.routes.exact import Exact as Exact
from motet.routes.features import Features as Features
from motet.routes.features import LastLayer as LastLayer
from motet.routes.features import sampled as sampled
from motet.routes.graph import branches as branches
from motet.routes.graph import last_layer as last_layer
from motet.routes.graph import leaves as leaves
from motet.routes.graph import nearest as nearest
from motet.routes.graph import obstacle as obstacle
from motet.routes.layerwise import Layerwise as Layerwise
from motet.routes.layerwise import exact as exact
from motet.routes.probe import Probe as Probe
from motet.routes.probe import ProbeError as ProbeError
from motet.routes.release import release as release
from motet.routes.weighted import Weighted as Weighted
