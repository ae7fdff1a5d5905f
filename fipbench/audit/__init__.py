"""The attack audit: tries to break the robustness that a record claims.

The members are made again through the track's own code, it is checked that they are those of the record, then their
vote is attacked harder than the task does, at the recorded radii and beyond, and by other means.
"""

from fipbench.audit.findings import lines
from fipbench.audit.run import Otherwise, audit, prepared
from fipbench.audit.searches import SIZES

__all__ = ["SIZES", "Otherwise", "audit", "lines", "prepared"]
