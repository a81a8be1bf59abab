//! Does what operations say, one after the other within a project. A dead daemon's operations are done by the next one.
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::store::operations::{self, Action, OperationRow};
use super::store::projects;
use super::{Service, provision};
use crate::pg::{ClusterInfo, PgError};

/// Projects worked on at a time. Making a cluster keeps a core busy for a second, and each holds one connection of the
/// control database's pool.
const AT_A_TIME: usize = 3;
static WORK: Semaphore = Semaphore::const_new(AT_A_TIME);

/// Attempts of an operation before it has failed, and the pause before the second one, doubled each time. What can pass by
/// itself here passes within a second: a server that is just stopping, a connection limit.
const ATTEMPTS: i32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Names the lock on a project. Only the one who holds it touches the project's cluster.
const LOCK_SPACE: &str = "neon project ";

/// Why an operation failed.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum OperationError {
    #[error("{}: {source}", source.code())]
    Cluster {
        #[from]
        source: PgError,
    },
    #[error("Postgres: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("the operation is unknown to this version of psn")]
    UnknownAction,
    #[error("a test asked for this failure")]
    Asked,
}

/// Told as soon as the project's cluster exists, or why it does not.
pub(crate) type Created = oneshot::Sender<Result<(), OperationError>>;

/// Starts to work off the project's operations. The work goes on when nobody waits for the handle. It yields the last failure.
pub(crate) fn spawn(service: &Service, project: &str, created: Option<Created>) -> JoinHandle<Option<OperationError>> {
    let (service, project) = (service.clone(), project.to_owned());
    tokio::spawn(async move {
        work_off(&service, &project, created).await.unwrap_or_else(|error| {
            // The operations stay as they are; the next daemon, or the next operation of the project, goes on.
            tracing::error!(%project, %error, "the control database failed during an operation");
            Some(error.into())
        })
    })
}

async fn work_off(
    service: &Service,
    project: &str,
    mut created: Option<Created>,
) -> Result<Option<OperationError>, sqlx::Error> {
    let mut failure = None;
    // The semaphore is never closed.
    let _permit = WORK.acquire().await.map_err(|_| sqlx::Error::WorkerCrashed)?;
    let mut connection = service.db.acquire().await?;
    // The lock ends with the session: a panic, an abort or a killed daemon cannot leave it behind.
    connection.close_on_drop();
    let db = &mut *connection;
    sqlx::query("SELECT pg_advisory_lock(hashtextextended($1, 0))")
        .bind(format!("{LOCK_SPACE}{project}"))
        .execute(&mut *db)
        .await?;
    while let Some(operation) = operations::next(db, project).await? {
        let Some(action) = Action::parse(&operation.action) else {
            give_up(db, &operation, &OperationError::UnknownAction).await?;
            failure = Some(OperationError::UnknownAction);
            continue;
        };
        match with_attempts(service, db, &operation, action).await {
            Ok(()) => {
                operations::finish(db, operation.id).await?;
                tracing::info!(%project, action = action.as_str(), "operation finished");
                if action == Action::CreateTimeline
                    && let Some(created) = created.take()
                {
                    // Whoever asked may be gone; the project is there anyway.
                    let _ = created.send(Ok(()));
                }
            }
            // The local hub ends. Nothing has failed: the next one goes on here.
            Err(error @ OperationError::Cluster { source: PgError::Closed { .. } }) => return Ok(Some(error)),
            Err(error) => {
                give_up(db, &operation, &error).await?;
                match action {
                    // Nothing exists that could be kept, and the caller hears that nothing was made.
                    Action::CreateTimeline => {
                        projects::abandon(&mut *db, project).await?;
                        remove_abandoned(service, db, project).await?;
                        if let Some(created) = created.take() {
                            let _ = created.send(Err(error));
                            continue;
                        }
                    }
                    Action::StartCompute => projects::endpoint_idle(db, project).await?,
                    Action::SuspendCompute | Action::ApplyConfig => {}
                }
                failure = Some(error);
            }
        }
    }
    // Somebody else was faster and made it.
    if let Some(created) = created.take() {
        let _ = created.send(Ok(()));
    }
    Ok(failure)
}

async fn with_attempts(
    service: &Service,
    db: &mut PgConnection,
    operation: &OperationRow,
    action: Action,
) -> Result<(), OperationError> {
    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    loop {
        let Err(error) = perform(service, db, operation, action).await else {
            return Ok(());
        };
        if matches!(error, OperationError::Cluster { source: PgError::Closed { .. } }) {
            return Err(error);
        }
        operations::count_failure(db, operation.id, &error.to_string()).await?;
        // A cluster that cannot be made (no Postgres, a full disk) is not made by trying again.
        let is_final = matches!(error, OperationError::Asked);
        if is_final || attempt == ATTEMPTS || action == Action::CreateTimeline {
            return Err(error);
        }
        attempt += 1;
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

async fn give_up(db: &mut PgConnection, operation: &OperationRow, error: &OperationError) -> Result<(), sqlx::Error> {
    tracing::error!(project = %operation.project_id, action = %operation.action, %error, "operation failed");
    operations::fail(db, operation).await
}

async fn perform(
    service: &Service,
    db: &mut PgConnection,
    operation: &OperationRow,
    action: Action,
) -> Result<(), OperationError> {
    let project = &operation.project_id;
    if service.faults.fails(action) {
        return Err(OperationError::Asked);
    }
    match action {
        Action::CreateTimeline => {
            let cluster = service.clusters.create(project).await?;
            projects::cluster_created(db, project, cluster.port, cluster.major).await?;
        }
        Action::StartCompute => {
            let cluster = service.clusters.start(project).await?;
            apply(db, &cluster, operation).await?;
            projects::endpoint_active(db, project, cluster.port).await?;
        }
        Action::ApplyConfig => {
            let cluster = service.clusters.start(project).await?;
            apply(db, &cluster, operation).await?;
        }
        Action::SuspendCompute => {
            service.clusters.stop(project).await?;
            projects::endpoint_idle(db, project).await?;
        }
    }
    Ok(())
}

async fn apply(db: &mut PgConnection, cluster: &ClusterInfo, operation: &OperationRow) -> Result<(), OperationError> {
    if let Some(branch) = &operation.branch_id {
        provision::apply(db, cluster, branch).await?;
    }
    Ok(())
}

/// Deletes the cluster and then the rows of a project that was given up. What cannot be deleted now stays abandoned, and is
/// tried again at the next start.
pub(crate) async fn remove_abandoned(
    service: &Service,
    db: &mut PgConnection,
    project: &str,
) -> Result<(), sqlx::Error> {
    match service.clusters.remove(project).await {
        Ok(()) | Err(PgError::NoCluster { .. }) => projects::erase(db, project).await,
        Err(error) => {
            tracing::error!(%project, code = error.code(), %error, "the cluster of a deleted project could not be removed");
            Ok(())
        }
    }
}
