//! Puts the two services together over the control database.
use std::sync::Arc;

use axum::Router;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{Credentials, HubError};
use crate::TaskRunner;
use crate::pg::Clusters;

/// What the services are made from.
pub(super) struct Parts {
    pub(super) db: PgPool,
    pub(super) clusters: Clusters,
    pub(super) credentials: Credentials,
    pub(super) runner: Arc<dyn TaskRunner>,
    pub(super) neon_origin: Url,
    pub(super) trigger_origin: Url,
    pub(super) shutdown: CancellationToken,
}

pub(super) struct Services {
    pub(super) neon: Router,
    pub(super) trigger: Router,
}

pub(super) async fn assemble(parts: Parts) -> Result<Services, HubError> {
    let Parts { .. } = parts;
    Ok(Services {
        neon: Router::new(),
        trigger: Router::new(),
    })
}
