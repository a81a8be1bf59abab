//! The policy as a table, and the whole capability against a real server.
mod attacks;
mod lost;
mod policy;
mod postgres;

/// What stands in double quotes and begins like a statement.
fn statements(source: &str) -> Vec<String> {
    let begins = |s: &&str| ["SELECT ", "WITH ", "UPDATE ", "INSERT ", "DELETE "].iter().any(|w| s.starts_with(w));
    source.split('"').filter(begins).map(str::to_owned).collect()
}
