//! `psn cloud-run` and `psn-worker cloud-run`: what the tasks of `trigger/` start in Trigger.dev's cloud.
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args as ClapArgs;

use super::process::{self, Done, Process, Start};
use crate::error::CodedError;
use crate::hub::HubKind;
use crate::pipeline::cloud_run;
use crate::runtime::precompiled::named_digest;

/// Trigger.dev takes 3 MB; the rest is for what surrounds a payload.
pub(super) const MAX_PAYLOAD: u64 = 3 * 1024 * 1024;

/// The payload comes on standard input, as JSON.
#[derive(ClapArgs)]
pub(super) struct CloudRun {
    /// components/NAME@sha256-DIGEST.wasm
    pub(super) component: String,
    /// The folder with components/
    #[arg(long, value_name = "DIR")]
    pub(super) store: PathBuf,
    /// The platform's id of the run
    #[arg(long, value_name = "ID")]
    pub(super) run_id: String,
    #[arg(long, default_value_t = 1)]
    pub(super) attempt: u32,
    #[arg(long, value_name = "DATE")]
    pub(super) scheduled_at: Option<chrono::DateTime<chrono::Utc>>,
    /// The component's compiled code, sha256-DIGEST, for psn-worker, which has no compiler; psn compiles it itself
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    pub(super) compiled: Option<String>,
}

fn digest(text: &str) -> Result<String, String> {
    named_digest(text).map(str::to_owned).ok_or_else(|| "it is `sha256-` and 64 hexadecimal digits".to_owned())
}

/// The whole process. The hub is a cloud's to the component too, wherever this runs.
pub(super) fn main(run: CloudRun) -> ExitCode {
    let start = Start { is_silent: false, has_view: true, hub: HubKind::Cloud.as_str() };
    process::run(&start, async |process| cloud_run(process, run).await)
}

async fn cloud_run(process: &Process, run: CloudRun) -> Result<Done, CodedError> {
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_PAYLOAD + 1).read_to_string(&mut text);
    let payload = read.map_err(|e| e.to_string()).and_then(|_| serde_json::from_str(&text).map_err(|e| e.to_string()));
    let payload = payload.map_err(|e| {
        CodedError::new("usage.payload", format!("standard input is no JSON payload: {e}"), ["psn task trigger --help"])
    })?;
    let variables =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    let run = cloud_run::CloudRun {
        component: run.component,
        store: run.store,
        compiled: run.compiled,
        payload,
        attempt: run.attempt,
        scheduled_at: run.scheduled_at,
        run_id: run.run_id.into(),
    };
    let summary = cloud_run::cloud_run(run, &variables, Arc::clone(&process.redactor), process.events.clone()).await?;
    Ok(Done::Summary(summary))
}
