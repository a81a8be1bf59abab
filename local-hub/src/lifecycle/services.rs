//! Puts the two services together over the control database.
use std::sync::Arc;

use axum::Router;
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{Credentials, HubError};
use crate::TaskRunner;
use crate::neon::{self, NeonContext, OperationError};
use crate::pg::{Clusters, PgError};
use crate::trigger::{self, TriggerContext};

/// What the services are made from.
pub(super) struct Parts {
    pub(super) db: PgPool,
    pub(super) clusters: Clusters,
    pub(super) credentials: Credentials,
    pub(super) runner: Arc<dyn TaskRunner>,
    pub(super) neon_origin: Url,
    pub(super) test_token: Option<String>,
    pub(super) trigger_origin: Url,
    pub(super) shutdown: CancellationToken,
}

pub(super) struct Services {
    pub(super) neon: Router,
    pub(super) trigger: Router,
    /// Ends after `shutdown`, when no run executes any more.
    pub(super) engine: JoinHandle<()>,
}

pub(super) async fn assemble(parts: Parts) -> Result<Services, HubError> {
    let neon_context = NeonContext {
        db: parts.db.clone(),
        clusters: parts.clusters,
        api_key: parts.credentials.neon_api_key.clone(),
        origin: parts.neon_origin,
        test_token: parts.test_token,
    };
    for failure in neon::resume(&neon_context).await? {
        let project = failure.project_id;
        match failure.error {
            // Only the person can free the port or give it up, and until then the project's connection strings are dead.
            OperationError::Cluster { source: source @ PgError::PortTaken { .. } } => return Err(source.into()),
            // The other projects work, and this one's history says what happened.
            error => tracing::error!(%project, %error, "the project's database could not be started"),
        }
    }
    let trigger = trigger::start(TriggerContext {
        db: parts.db,
        access_token: parts.credentials.trigger_access_token.clone(),
        origin: parts.trigger_origin,
        runner: parts.runner,
        shutdown: parts.shutdown,
    });
    let trigger = trigger.await?;
    Ok(Services { neon: neon::router(neon_context).await?, trigger: trigger.router, engine: trigger.engine })
}
