//! What is left of a schedule on a plan that allows none more often than hourly.

/// The same schedule with one tick in the hour; none where it has no more already, or is not understood.
pub(crate) fn hourly(cron: &str) -> Option<String> {
    let fields: Vec<&str> = cron.split_whitespace().collect();
    let [minute, rest @ ..] = fields.as_slice() else { return None };
    if rest.len() != 4 || minute.parse::<u8>().is_ok() {
        return None;
    }
    // `5-59/10` and `5,35` begin at 5; `*` and `*/15` at 0.
    let first = minute.split([',', '-', '/']).next().filter(|first| first.parse::<u8>().is_ok()).unwrap_or("0");
    Some([&[first], rest].concat().join(" "))
}

#[cfg(test)]
mod tests {
    use super::hourly;

    #[test]
    fn a_schedule_keeps_everything_but_its_minutes() {
        for (cron, expected) in [
            ("*/15 * * * *", Some("0 * * * *")),
            ("* * * * *", Some("0 * * * *")),
            ("0,30 9-17 * * 1-5", Some("0 9-17 * * 1-5")),
            ("5-59/10 * * * *", Some("5 * * * *")),
            ("0 * * * *", None),
            ("30 6 * * *", None),
            ("@hourly", None),
            ("", None),
        ] {
            assert_eq!(hourly(cron).as_deref(), expected, "{cron}");
        }
    }
}
