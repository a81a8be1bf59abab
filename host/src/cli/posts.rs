//! `psn posts`: what a person sees of the posts, and decides about those that psn may not decide about. Runs as `psn_app` for one
//! user, so that row-level security holds: the hub's owner is not used for people's data.
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Row as _};
use uuid::Uuid;

use super::{Context, Done, run};
use crate::capabilities::Deadline;
use crate::error::CodedError;
use crate::events::Event;
use crate::hub::{Purpose, connect};

/// What a result event of these commands is named after.
pub(super) const COMMAND: &str = "posts ";
/// Seconds for the whole command, with a compute that wakes up meanwhile.
const TIME: Duration = Duration::from_secs(60);
/// Milliseconds that one statement may take, and wait for a lock: a person waits for the answer.
const STATEMENT: &str = "SET LOCAL statement_timeout = '20s'; SET LOCAL lock_timeout = '5s'";
/// Posts in one list.
const MAX_LIST: u32 = 1_000;
/// Characters of a reason, and of a platform's id for a post.
const MAX_WORDS: usize = 500;
/// Characters of a post's content in an answer.
const EXCERPT: i32 = 80;

#[derive(Args)]
pub(super) struct Posts {
    /// Whose posts: an e-mail address or a user's id [default: the hub's only user]
    #[arg(long, global = true, value_name = "USER")]
    user: Option<String>,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Lists posts, those that need a person first
    List {
        /// Only those in this state
        #[arg(long)]
        status: Option<Status>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIST)))]
        limit: u32,
    },
    /// Shows one post with its attempts, and what can be done about it
    Show {
        /// Its id
        post: String,
    },
    /// Has a parked, failed or cancelled post tried again
    Retry {
        post: String,
        /// Says that you looked, and the platform does not have it
        #[arg(long)]
        not_published: bool,
    },
    /// Takes a post out of the watchdog's hands until it is retried
    Park {
        post: String,
        /// Why
        #[arg(long, default_value = "Parked by a person")]
        reason: String,
    },
    /// Ends a post as failed; or, where the platform does have it, as published
    Fail {
        post: String,
        /// Why
        #[arg(long, default_value = "Given up by a person")]
        reason: String,
        /// Says that you looked, and the platform does not have it
        #[arg(long)]
        not_published: bool,
        /// It is out: records it as published, under the platform's id for it
        #[arg(long, value_name = "ID", conflicts_with_all = ["not_published", "reason"])]
        published_as: Option<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Status {
    Draft,
    Scheduled,
    Retrying,
    Publishing,
    Published,
    Failed,
    Parked,
    Cancelled,
}

impl Status {
    fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }
}

pub(super) async fn posts(context: &Context, posts: Posts) -> Result<Done, CodedError> {
    // What is given is looked at before anything is started.
    let ids = match &posts.command {
        Verb::List { .. } => None,
        Verb::Show { post } | Verb::Retry { post, .. } | Verb::Park { post, .. } | Verb::Fail { post, .. } => {
            Some(post_id(post)?)
        }
    };
    let words = match &posts.command {
        Verb::Park { reason, .. } | Verb::Fail { reason, published_as: None, .. } => Some(("--reason", reason)),
        Verb::Fail { published_as: Some(id), .. } => Some(("--published-as", id)),
        _ => None,
    };
    if let Some((flag, text)) = words {
        check_words(flag, text)?;
    }
    let session = run::open(context, false).await?;
    let deadline = Deadline::after(TIME);
    let environment = &session.environment;
    let mut connection = connect(&Purpose::App, &environment.secrets, &environment.tls, deadline).await?;
    let work = answer(&mut connection, &posts, ids);
    let (verb, data) = tokio::time::timeout(deadline.remaining(), work).await.map_err(|_| slow())??;
    // Its transaction has ended; nothing depends on how the connection does.
    let _ = connection.close().await;
    context.events.emit(&Event::Result { command: format!("{COMMAND}{verb}"), data });
    Ok(Done::Ok)
}

async fn answer(
    connection: &mut PgConnection,
    posts: &Posts,
    id: Option<Uuid>,
) -> Result<(&'static str, Value), CodedError> {
    let mut tx = connection.begin().await.map_err(|e| database(&e))?;
    sqlx::raw_sql(STATEMENT).execute(&mut *tx).await.map_err(|e| database(&e))?;
    let user = match user(&mut tx, posts.user.as_deref()).await? {
        Whose::User(id) => id,
        Whose::Nobody if matches!(posts.command, Verb::List { .. }) => return Ok(("list", json!({ "posts": [] }))),
        Whose::Nobody => return Err(unknown(id.unwrap_or_default())),
    };
    sqlx::query("SELECT pg_catalog.set_config('app.current_user_id', $1, true)")
        .bind(user.to_string())
        .persistent(false)
        .execute(&mut *tx)
        .await
        .map_err(|e| database(&e))?;
    let answer = match (&posts.command, id) {
        (Verb::List { status, limit }, _) => ("list", list(&mut tx, *status, *limit).await?),
        (_, None) => unreachable!("every other command names a post"),
        (Verb::Show { .. }, Some(id)) => ("show", show(&mut tx, id).await?),
        (Verb::Retry { not_published, .. }, Some(id)) => {
            let query = sqlx::query_scalar("SELECT psn.retry_post($1, $2)").bind(id).bind(*not_published);
            let word = word(query, &mut tx).await?;
            resolved(&known(word, id, &mut tx).await?, id, "retry")?;
            let next = json!({ "post": id, "status": "retrying", "next": "psn run watchdog" });
            ("retry", next)
        }
        (Verb::Park { reason, .. }, Some(id)) => {
            let query = sqlx::query_scalar("SELECT psn.end_post($1, 'parked', $2, false)").bind(id).bind(reason);
            let word = word(query, &mut tx).await?;
            resolved(&known(word, id, &mut tx).await?, id, "park")?;
            ("park", json!({ "post": id, "status": "parked", "next": format!("psn posts show {id}") }))
        }
        (Verb::Fail { published_as: Some(external), .. }, Some(id)) => {
            let query = sqlx::query_scalar("SELECT psn.published_post($1, $2)").bind(id).bind(external);
            let word = word(query, &mut tx).await?;
            resolved(&known(word, id, &mut tx).await?, id, "fail")?;
            ("fail", json!({ "post": id, "status": "published", "external_id": external }))
        }
        (Verb::Fail { reason, not_published, .. }, Some(id)) => {
            let query = sqlx::query_scalar("SELECT psn.end_post($1, 'failed', $2, $3)")
                .bind(id)
                .bind(reason)
                .bind(*not_published);
            let word = word(query, &mut tx).await?;
            resolved(&known(word, id, &mut tx).await?, id, "fail")?;
            ("fail", json!({ "post": id, "status": "failed" }))
        }
    };
    tx.commit().await.map_err(|e| database(&e))?;
    Ok(answer)
}

type Asked<'q> = sqlx::query::QueryScalar<'q, sqlx::Postgres, String, sqlx::postgres::PgArguments>;

async fn word(query: Asked<'_>, tx: &mut PgConnection) -> Result<String, CodedError> {
    query.persistent(false).fetch_one(tx).await.map_err(|e| database(&e))
}

/// Whose posts are meant.
enum Whose {
    User(Uuid),
    /// The hub has no user yet.
    Nobody,
}

async fn user(tx: &mut PgConnection, named: Option<&str>) -> Result<Whose, CodedError> {
    if let Some(id) = named.and_then(|n| Uuid::try_parse(n).ok()) {
        return Ok(Whose::User(id));
    }
    let found: Option<Uuid> = sqlx::query_scalar("SELECT psn.find_user($1)")
        .bind(named)
        .persistent(false)
        .fetch_one(&mut *tx)
        .await
        .map_err(|e| database(&e))?;
    if let Some(id) = found {
        return Ok(Whose::User(id));
    }
    let users: i32 = sqlx::query_scalar("SELECT psn.count_users()")
        .persistent(false)
        .fetch_one(tx)
        .await
        .map_err(|e| database(&e))?;
    let whose = "Give the e-mail address that the user has in this hub, or the user's id: --user ID";
    match (named, users) {
        (None, 0) => Ok(Whose::Nobody),
        (None, _) => Err(CodedError::new(
            "posts.which-user",
            "this hub has several users: say whose posts are meant",
            ["psn posts list --user EMAIL"],
        )),
        (Some(name), 0 | 1) => {
            let there = if users == 0 { "and none at all yet" } else { "but one" };
            Err(CodedError::new(
                "posts.unknown-user",
                format!("this hub has no user {name}, {there}"),
                ["psn posts list", whose],
            ))
        }
        (Some(name), _) => Err(CodedError::new("posts.unknown-user", format!("this hub has no user {name}"), [whose])),
    }
}

const COLUMNS: &str = "jsonb_build_object('post', p.id, 'platform', p.platform, 'kind', p.kind, 'status', p.status,
    'scheduled_at', p.scheduled_at, 'rescue_at', p.rescue_at, 'attempt', p.attempt, 'last_error', p.last_error,
    'begun', p.side_effect_at IS NOT NULL, 'excerpt', left(p.content, $1))";

async fn list(tx: &mut PgConnection, status: Option<Status>, limit: u32) -> Result<Value, CodedError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM public.posts p WHERE $2::text IS NULL OR p.status = $2
         ORDER BY p.status NOT IN ('parked', 'failed'), p.updated_at DESC, p.id LIMIT $3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(EXCERPT)
        .bind(status.map(Status::name))
        .bind(i64::from(limit))
        .persistent(false)
        .fetch_all(tx)
        .await
        .map_err(|e| database(&e))?;
    let posts: Vec<Value> = rows.iter().map(first).collect::<Result<_, _>>()?;
    Ok(json!({ "posts": posts }))
}

async fn show(tx: &mut PgConnection, id: Uuid) -> Result<Value, CodedError> {
    let sql = format!(
        "SELECT {COLUMNS} || jsonb_build_object('run_id', p.run_id, 'side_effect_at', p.side_effect_at,
            'published_at', p.published_at, 'external_id', p.external_id, 'max_lateness', p.max_lateness::text,
            'attempts', coalesce((SELECT jsonb_agg(to_jsonb(a) - 'post_id' ORDER BY a.attempt) FROM psn.post_attempts a WHERE a.post_id = p.id), '[]'),
            'dead_letters', coalesce((SELECT jsonb_agg(to_jsonb(d) - 'post_id' ORDER BY d.created_at) FROM psn.dead_letters d WHERE d.post_id = p.id), '[]'))
         FROM public.posts p WHERE p.id = $2"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(EXCERPT)
        .bind(id)
        .persistent(false)
        .fetch_optional(tx)
        .await
        .map_err(|e| database(&e))?;
    let mut post = first(&row.ok_or_else(|| unknown(id))?)?;
    post["next"] = json!(next(&post, id));
    Ok(post)
}

/// What a person can do about it, as it can be typed.
fn next(post: &Value, id: Uuid) -> Vec<String> {
    let begun = post["begun"] == true;
    match post["status"].as_str().unwrap_or_default() {
        "parked" | "failed" if begun => vec![
            "Look at the platform whether the post is there".to_owned(),
            format!("psn posts fail {id} --published-as ID"),
            format!("psn posts retry {id} --not-published"),
        ],
        "parked" | "failed" | "cancelled" => vec![format!("psn posts retry {id}"), format!("psn posts fail {id}")],
        "scheduled" | "retrying" | "publishing" => {
            vec![format!("psn run watchdog --explain {id}"), format!("psn posts park {id}")]
        }
        _ => Vec::new(),
    }
}

fn first(row: &PgRow) -> Result<Value, CodedError> {
    row.try_get(0).map_err(|e| database(&e))
}

/// For people: one line a post, and what is known of a single one.
pub(super) fn lines(data: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let line = |post: &Value| {
        let known = ["post", "status", "platform", "scheduled_at", "last_error", "external_id", "excerpt"];
        let words: Vec<String> = known.iter().filter(|k| !post[**k].is_null()).map(|k| text(&post[*k])).collect();
        words.join("  ")
    };
    let Some(posts) = data["posts"].as_array() else {
        let next: Vec<&Value> = match &data["next"] {
            Value::Array(all) => all.iter().collect(),
            Value::Null => Vec::new(),
            one => vec![one],
        };
        let next = next.into_iter().map(|command| format!("→ {}", text(command)));
        return std::iter::once(line(data)).chain(next).collect();
    };
    if posts.is_empty() { vec!["No posts".to_owned()] } else { posts.iter().map(line).collect() }
}

/// What has not ended is most often on its way; a draft is not even scheduled.
async fn known(word: String, id: Uuid, tx: &mut PgConnection) -> Result<String, CodedError> {
    if word != "not-ended" {
        return Ok(word);
    }
    let status: Option<String> = sqlx::query_scalar("SELECT status FROM public.posts WHERE id = $1")
        .bind(id)
        .persistent(false)
        .fetch_optional(tx)
        .await
        .map_err(|e| database(&e))?;
    Ok(if status.as_deref() == Some("draft") { "not-scheduled".to_owned() } else { word })
}

/// The functions' words, as errors.
fn resolved(word: &str, id: Uuid, verb: &str) -> Result<(), CodedError> {
    let show = format!("psn posts show {id}");
    Err(match word {
        "done" | "already" => return Ok(()),
        "unknown" => unknown(id),
        "published" => CodedError::new(
            "posts.published",
            format!("post {id} is published: nothing can be done to it that the platform would not see twice"),
            [show],
        ),
        "not-ended" => CodedError::new(
            "posts.not-ended",
            format!("post {id} is not parked or failed: the watchdog looks after it"),
            [format!("psn run watchdog --explain {id}"), format!("psn posts park {id}")],
        ),
        "not-scheduled" => {
            CodedError::new("posts.not-scheduled", format!("post {id} is a draft: nothing would publish it"), [show])
        }
        "ambiguous" => CodedError::new(
            "posts.ambiguous",
            format!("publishing post {id} was begun, and nobody knows how it ended: look at the platform first"),
            [
                format!("psn posts fail {id} --published-as ID"),
                if verb == "retry" {
                    format!("psn posts retry {id} --not-published")
                } else {
                    format!("psn posts fail {id} --not-published")
                },
            ],
        ),
        other => CodedError::new(
            "posts.database",
            format!("the hub's database answered `{other}`, which this psn does not know"),
            ["psn run migrate"],
        ),
    })
}

fn unknown(id: Uuid) -> CodedError {
    CodedError::new(
        "posts.unknown",
        format!("this user has no post {id}"),
        ["psn posts list".to_owned(), format!("psn posts show {id} --user EMAIL")],
    )
}

fn post_id(text: &str) -> Result<Uuid, CodedError> {
    Uuid::try_parse(text).map_err(|_| {
        CodedError::new(
            "posts.bad-id",
            "that is no post's id: they look like 00000000-0000-4000-8000-000000000000",
            ["psn posts list"],
        )
    })
}

fn check_words(flag: &str, text: &str) -> Result<(), CodedError> {
    let fits = !text.trim().is_empty() && text.chars().count() <= MAX_WORDS && !text.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    Err(CodedError::new(
        "posts.bad-words",
        format!("{flag} is empty, has control characters, or more than {MAX_WORDS} characters"),
        ["psn posts --help"],
    ))
}

fn slow() -> CodedError {
    CodedError::new("posts.slow", "the hub's database did not answer in time; nothing was changed", ["psn posts list"])
        .retryable()
}

fn database(error: &sqlx::Error) -> CodedError {
    let sqlstate = error.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
    match sqlstate.as_str() {
        // No such function, table or schema: a hub from before this psn.
        "42883" | "42P01" | "3F000" => {
            CodedError::new("posts.old-hub", "the hub's database was set up by an older psn", ["psn run migrate"])
        }
        // Locked, cancelled, read-only, going down: nothing was changed, and later it may go.
        "55P03" | "57014" | "25006" | "57P01" | "57P02" | "57P03" => {
            CodedError::new("posts.database", format!("the hub's database refused: {error}"), ["psn run validate"])
                .retryable()
        }
        _ => CodedError::new("posts.database", format!("the hub's database refused: {error}"), ["psn run validate"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_of_the_database_is_an_error_with_a_fix() {
        let id = Uuid::nil();
        for (word, code) in [
            ("unknown", "posts.unknown"),
            ("published", "posts.published"),
            ("not-ended", "posts.not-ended"),
            ("not-scheduled", "posts.not-scheduled"),
            ("ambiguous", "posts.ambiguous"),
            ("gibberish", "posts.database"),
        ] {
            let error = resolved(word, id, "retry").unwrap_err();
            assert_eq!(error.code, code);
            assert!(!error.fix.is_empty());
        }
        assert!(resolved("done", id, "retry").is_ok());
        assert!(resolved("ambiguous", id, "fail").unwrap_err().fix[1].contains("posts fail"));
    }

    #[test]
    fn what_a_person_can_do_depends_on_whether_it_may_be_out() {
        let of = |status: &str, begun: bool| next(&json!({ "status": status, "begun": begun }), Uuid::nil()).join("; ");
        assert!(of("parked", true).contains("--published-as") && of("parked", true).contains("--not-published"));
        assert!(!of("parked", false).contains("--not-published"));
        assert!(of("publishing", false).contains("--explain"));
        assert_eq!(of("published", true), "");
    }

    #[test]
    fn ids_and_words_are_looked_at_first() {
        assert_eq!(post_id("'; drop table posts").unwrap_err().code, "posts.bad-id");
        assert_eq!(check_words("--reason", " ").unwrap_err().code, "posts.bad-words");
        assert_eq!(check_words("--reason", "a\u{7}b").unwrap_err().code, "posts.bad-words");
        assert!(check_words("--reason", "It rained").is_ok());
    }
}
