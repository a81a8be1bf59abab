//! Branches. A project has its default one.
use std::cmp::Ordering;
use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::Service;
use super::auth::Authenticated;
use super::error::ApiError;
use super::extract::{self, Params};
use super::model::{Annotation, AnnotationObject, BranchBody, BranchList, CursorPagination};
use super::store::projects::{self, BranchRow};

/// As Neon's API documents it.
const LIST_MAX: i64 = 10_000;

#[derive(Deserialize)]
pub(crate) struct ListParams {
    search: Option<String>,
    #[serde(default)]
    sort_by: SortBy,
    #[serde(default)]
    sort_order: SortOrder,
    cursor: Option<String>,
    limit: Option<i64>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum SortBy {
    Name,
    CreatedAt,
    #[default]
    UpdatedAt,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum SortOrder {
    Asc,
    #[default]
    Desc,
}

impl SortBy {
    fn as_str(self) -> &'static str {
        match self {
            SortBy::Name => "name",
            SortBy::CreatedAt => "created_at",
            SortBy::UpdatedAt => "updated_at",
        }
    }

    fn compare(self, a: &BranchRow, b: &BranchRow) -> Ordering {
        let by_field = match self {
            SortBy::Name => a.name.cmp(&b.name),
            SortBy::CreatedAt => a.created_at.cmp(&b.created_at),
            SortBy::UpdatedAt => a.updated_at.cmp(&b.updated_at),
        };
        by_field.then_with(|| a.id.cmp(&b.id))
    }
}

pub(crate) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
    Params(params): Params<ListParams>,
) -> Result<Json<BranchList>, ApiError> {
    let limit = extract::limit(params.limit, LIST_MAX, LIST_MAX)?;
    projects::get(&service.db, &caller.reach, &project).await?;
    let rows = projects::branches(&service.db, &project).await?;
    let (page, next) = page(rows, &params, usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(BranchList {
        branches: page.iter().map(Into::into).collect(),
        annotations: BTreeMap::new(),
        pagination: CursorPagination {
            next,
            sort_by: params.sort_by.as_str(),
            sort_order: match params.sort_order {
                SortOrder::Asc => "ASC",
                SortOrder::Desc => "DESC",
            },
        },
    }))
}

/// The cursor is the id of the last branch of the page before.
fn page(mut rows: Vec<BranchRow>, params: &ListParams, limit: usize) -> (Vec<BranchRow>, Option<String>) {
    if let Some(search) = &params.search {
        let search = search.to_lowercase();
        rows.retain(|row| row.name.to_lowercase().contains(&search) || row.id.contains(&search));
    }
    rows.sort_by(|a, b| match params.sort_order {
        SortOrder::Asc => params.sort_by.compare(a, b),
        SortOrder::Desc => params.sort_by.compare(b, a),
    });
    if let Some(cursor) = params.cursor.as_ref().filter(|cursor| !cursor.is_empty()) {
        let seen = rows.iter().position(|row| row.id == *cursor).map_or(rows.len(), |at| at + 1);
        rows.drain(..seen);
    }
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.id.clone());
    (rows, next)
}

pub(crate) async fn get(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch)): Path<(String, String)>,
) -> Result<Json<BranchBody>, ApiError> {
    projects::get(&service.db, &caller.reach, &project).await?;
    let row = projects::branch(&service.db, &project, &branch).await?;
    let object = AnnotationObject { r#type: "console/branch", id: row.id.clone() };
    Ok(Json(BranchBody { branch: (&row).into(), annotation: Annotation { object, value: BTreeMap::new() } }))
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};

    use super::*;

    fn rows() -> Vec<BranchRow> {
        let now = Utc::now();
        ["main", "dev", "Preview"]
            .iter()
            .zip(0..)
            .map(|(name, age)| BranchRow {
                id: format!("br-{age}"),
                project_id: "p".into(),
                name: (*name).into(),
                is_default: age == 0,
                ready: true,
                state_changed_at: now,
                created_at: now,
                updated_at: now + TimeDelta::seconds(age),
            })
            .collect()
    }

    fn params(query: serde_json::Value) -> ListParams {
        serde_json::from_value(query).unwrap()
    }

    #[test]
    fn pages_follow_each_other_and_end() {
        let mut cursor = String::new();
        let mut seen = Vec::new();
        loop {
            let (rows, next) = page(rows(), &params(serde_json::json!({"cursor": cursor})), 2);
            seen.extend(rows.into_iter().map(|row| row.name));
            match next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        assert_eq!(seen, ["Preview", "dev", "main"], "the latest change first");
    }

    #[test]
    fn a_part_of_the_name_finds_a_branch_in_any_case() {
        let (found, next) =
            page(rows(), &params(serde_json::json!({"search": "pre", "sort_by": "name", "sort_order": "asc"})), 10);
        assert_eq!((found.len(), found[0].name.as_str(), next), (1, "Preview", None));
    }
}
