//! `psn plan` and `psn apply`
use std::path::Path;

use super::args::PlanArgs;
use super::run::options;
use super::{Context, Done};
use crate::error::CodedError;
use crate::events::{Level, StepStatus};
use crate::pipeline::{self, Plan, Session};

pub(super) async fn plan(context: &Context, args: PlanArgs) -> Result<Done, CodedError> {
    // `setup` is all that can be planned, and clap has seen to it that it stands there.
    debug_assert_eq!(args.what, "setup");
    let mut session = Session::look(options(context, true)).await?;
    let (summary, plan) = pipeline::plan_setup(&mut session).await;
    if session.is_new {
        let kept = "this folder has no hub yet: the id in these names is the new hub's if the plan is applied (psn plan setup --out FILE, psn apply FILE); psn run setup chooses another";
        context.events.log(Level::Info, "psn", kept);
    }
    if let Some(path) = args.out
        && matches!(summary.status, StepStatus::Planned | StepStatus::Success)
    {
        plan.save(&path)?;
        let hub = context.common.hub.map(|kind| format!(" --hub {}", kind.as_str())).unwrap_or_default();
        context.events.log(Level::Info, "psn", format!("the plan is in {0}: psn apply {0}{hub}", path.display()));
    }
    Ok(Done::Summary(summary))
}

pub(super) async fn apply(context: &Context, file: &Path) -> Result<Done, CodedError> {
    let plan = Plan::load(file)?;
    Ok(Done::Summary(pipeline::apply(|| options(context, true), &plan, file).await?))
}
