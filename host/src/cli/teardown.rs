//! `psn teardown`: first what would go, then, confirmed by the hub's id, that.
use serde_json::json;

use super::run::{open, options};
use super::{Context, Done};
use crate::error::CodedError;
use crate::events::{Event, StepStatus};
use crate::pipeline::{self, Session};

pub(super) async fn teardown(context: &Context, confirm: Option<String>) -> Result<Done, CodedError> {
    let Some(confirmed) = confirm else {
        let mut session = Session::look(options(context, false)).await?;
        let summary = pipeline::plan_teardown(&mut session).await?;
        if summary.status == StepStatus::Planned {
            let id = &session.environment.hub_id;
            context.events.emit(&Event::Result {
                command: "teardown".to_owned(),
                data: json!({ "hub_id": id, "next": format!("psn teardown --confirm {id}") }),
            });
        }
        return Ok(Done::Summary(summary));
    };
    // Before anything is opened: a folder without a hub gets none by being torn down.
    let hub_id = {
        let session = Session::look(options(context, false)).await?;
        session.environment.hub_id.clone()
    };
    if hub_id != confirmed {
        return Err(CodedError::new(
            "teardown.other-hub",
            format!("--confirm names the hub {confirmed}, and this folder's hub is another"),
            ["psn teardown"],
        ));
    }
    let mut session = open(context, false).await?;
    Ok(Done::Summary(pipeline::teardown(&mut session).await?))
}
