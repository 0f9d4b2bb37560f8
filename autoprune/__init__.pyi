from autoprune.deploy.apply import apply as apply
from autoprune.deploy.export import export as export
from autoprune.deploy.save import load_pruned as load_pruned
from autoprune.deploy.save import save_pruned as save_pruned
from autoprune.deploy.sparsifier import Sparsifier as Sparsifier
from autoprune.errors import AutopruneError as AutopruneError
from autoprune.results.report import write_report as write_report
from autoprune.search.study import Study as Study
from autoprune.spec.config import PruningConfig as PruningConfig
from autoprune.spec.config import load_config as load_config
from autoprune.spec.record import RunRecords as RunRecords
from autoprune.spec.record import TrialRecord as TrialRecord
from autoprune.spec.record import read_records as read_records
from autoprune.spec.study import StudySpec as StudySpec
from autoprune.spec.study import load_study as load_study
from autoprune.training.schedules import ConstantSchedule as ConstantSchedule
from autoprune.training.schedules import CubicSchedule as CubicSchedule
from autoprune.training.schedules import ExponentialSchedule as ExponentialSchedule
from autoprune.training.schedules import IterativeSchedule as IterativeSchedule
from autoprune.training.schedules import OneCycleSchedule as OneCycleSchedule
from autoprune.training.schedules import OneShotSchedule as OneShotSchedule
from autoprune.training.schedules import PolynomialSchedule as PolynomialSchedule
from autoprune.trial.task import Task as Task
from autoprune.trial.task import load_task as load_task

__version__: str
