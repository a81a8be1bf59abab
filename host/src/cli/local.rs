//! `psn local`
use std::path::PathBuf;
use std::sync::Arc;

use psn_local_hub::lifecycle::{self, Home, ServeOptions};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::Local;
use super::{Context, Done};
use crate::error::CodedError;
use crate::events::Event;
use crate::pipeline::session::{hub_error, local_up};
use crate::pipeline::{home, task_runner::ComponentRunner};
use crate::runtime::{CompileBounds, Compiler, Runtime, RuntimeOptions};

/// A test that sets it before the daemon starts can ask the Neon service for faults.
const TEST_TOKEN: &str = "PSN_TEST_FAULTS_TOKEN";

pub(super) async fn local(context: &Context, command: Local) -> Result<Done, CodedError> {
    let home = home::local_hub();
    let data = match command {
        Local::Serve { home } => return serve(home).await,
        Local::Up { new_ports } => {
            let endpoints = local_up(&context.events, new_ports).await?;
            json!({ "state": "running", "endpoints": endpoints })
        }
        Local::Down => json!({ "stopped": lifecycle::down(&home).await.map_err(hub_error)? }),
        Local::Status => json!(lifecycle::status(&home).await),
        Local::Reset { yes: false } => {
            return Err(CodedError::new(
                "local.reset-not-confirmed",
                format!("this deletes {} with all databases in it", home.path().display()),
                ["psn local reset --yes"],
            ));
        }
        Local::Reset { yes: true } => {
            lifecycle::reset(&home).await.map_err(hub_error)?;
            json!({ "deleted": home.path() })
        }
        Local::Logs { lines } => json!(lifecycle::logs(&home, lines).map_err(hub_error)?),
    };
    context.events.emit(&Event::Result { command: "local".to_owned(), data });
    Ok(Done::Ok)
}

/// The daemon. Its words go to standard error, which `up` points at the log.
async fn serve(home: PathBuf) -> Result<Done, CodedError> {
    let home = Home::new(home);
    let cache_dir = Some(home::psn_home().join("cache"));
    let runtime = Runtime::new(RuntimeOptions {
        cache_dir,
        compiler: Compiler::this_program(CompileBounds::default()),
        ..RuntimeOptions::default()
    })?;
    let runner = Arc::new(ComponentRunner::new(home.clone(), Arc::new(runtime)));
    let options = ServeOptions {
        keep_postgres: false,
        version: home::build_version(),
        pg: psn_local_hub::pg::PgOptions::default(),
        test_token: std::env::var(TEST_TOKEN).ok(),
        shutdown: CancellationToken::new(),
    };
    lifecycle::serve(home, runner, options).await.map_err(hub_error)?;
    Ok(Done::Silent)
}
