"""What a model costs, and how that compares with what the papers' tables say."""

from mmevm.analysis.complexity import Complexity, count
from mmevm.analysis.report import reproduction
from mmevm.analysis.tasks import SIZES, measure

__all__ = ['SIZES', 'Complexity', 'count', 'measure', 'reproduction']
