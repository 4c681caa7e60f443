"""What `study init` prints: everything that was found, what it proposes, and the next commands."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from study.inputs.fitted_defaults import MAX_BALANCED_RATIO
from study.inputs.preparation import Prepared
from study.views.first_spec.proposal import Proposal
from study.views.first_spec.spec_text import FirstSpec, choose_margin, describe_time, takes_crops
from study.views.first_spec.survey import Survey
from trainables.data.image_audit import AuditReport
from trainables.data.images import ImageSet
from trainables.data.problems import Problem, make_error
