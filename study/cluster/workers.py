"""Where trials and tasks run: on the devices of a Ray cluster, or one after the other in this process."""

from study.cluster.connection import THIS_PROCESS, Cluster
from study.cluster.tasks import Workers
from study.spec.study_spec import StudySpec
from trainables.training.trial_data import TrialData


def make_workers(cluster: Cluster, spec: StudySpec, data: TrialData) -> Workers:
    """Return the workers of a cluster, which hold the data; Ray is imported for those of a Ray cluster alone.

    Args:
        cluster: connected.
        spec: of the study.
        data: of the study.
    """
    if cluster.address == THIS_PROCESS:
        from study.cluster.process_workers import ProcessWorkers

        return ProcessWorkers(spec, data)
    from study.cluster.ray_workers import RayWorkers

    return RayWorkers(cluster, spec, data)
