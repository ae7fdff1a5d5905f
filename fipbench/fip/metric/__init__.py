"""Weight space as a manifold: the metric g = J^T J of a network's outputs, its spectrum, lengths and geodesics.

from fipbench.fip import metric
g = metric.metric_of(network, inputs)          # an operator: g.product(v), g.squared_speed(v)
spectrum = metric.gram(g)                      # eigenvalues, null space, (g + mu I)^-1 v
"""

from fipbench.fip.metric.geodesic import Christoffel, Geodesic, christoffel, connect, geodesic
from fipbench.fip.metric.gram import Gram, Solution, gram, jacobian
from fipbench.fip.metric.lanczos import Density, Extremes, Tridiagonal, density, extremes, lanczos
from fipbench.fip.metric.length import PathMeasure, measure_path
from fipbench.fip.metric.operator import SPACES, Metric, metric_of
from fipbench.fip.metric.random_matrix import MarchenkoPastur, kolmogorov_smirnov, law_of

__all__ = [
    "SPACES",
    "Christoffel",
    "Density",
    "Extremes",
    "Geodesic",
    "Gram",
    "MarchenkoPastur",
    "Metric",
    "PathMeasure",
    "Solution",
    "Tridiagonal",
    "christoffel",
    "connect",
    "density",
    "extremes",
    "geodesic",
    "gram",
    "jacobian",
    "kolmogorov_smirnov",
    "lanczos",
    "law_of",
    "measure_path",
    "metric_of",
]
