//! A manifest's wishes one by one, each a short line: what psn.lock records, and what differences are told in.
use super::consent::visible;
use super::manifest::{Auth, Manifest};

/// Every single right, in a fixed order. Two manifests with the same lines ask for the same, and the other way round.
pub fn rights(manifest: &Manifest) -> Vec<String> {
    let mut lines = Vec::new();
    for service in &manifest.http {
        let name = &service.service;
        lines.push(format!("http {name} at {}", service.base));
        match &service.auth {
            None => {}
            Some(Auth::Bearer(secret)) => lines.push(format!("http {name} signed in with {secret}")),
            Some(Auth::Header { name: header, secret }) => {
                lines.push(format!("http {name} signed in with {secret} as {header}"));
            }
        }
        lines.extend(service.routes.iter().map(|route| format!("http {name} {route}")));
        for (route, values) in &service.capture {
            lines.extend(
                values.iter().map(|(pointer, secret)| format!("http {name} {route} keeps {pointer} as {secret}")),
            );
        }
        for (route, places) in &service.inject {
            for (pointer, secrets) in places {
                lines.extend(secrets.iter().map(|secret| format!("http {name} {route} is sent {secret} at {pointer}")));
            }
        }
    }
    for (table, grant) in &manifest.db {
        for (right, columns) in [("select", &grant.select), ("insert", &grant.insert), ("update", &grant.update)] {
            lines.extend(columns.iter().map(|column| format!("db {table} {right} {column}")));
        }
        lines.extend(grant.delete.then(|| format!("db {table} delete")));
        lines.extend(grant.execute.then(|| format!("db {table} execute")));
        if *grant == super::manifest::DbGrant::default() {
            lines.push(format!("db {table} nothing"));
        }
    }
    lines.extend(manifest.secrets.names.iter().map(|name| format!("secret {name} known")));
    lines.extend(manifest.secrets.generate.iter().map(|name| format!("secret {name} made")));
    for tool in &manifest.tool {
        let name = &tool.name;
        lines.extend(tool.args.iter().map(|args| format!("tool {name} {args:?}")));
        lines.extend(tool.env.iter().map(|secret| format!("tool {name} receives {secret}")));
        lines.extend(
            tool.addresses.iter().map(|(variable, service)| format!("tool {name} told {service} in {variable}")),
        );
        for capture in &tool.capture {
            let kept = capture.json.iter().map(|(pointer, secret)| format!("{pointer} as {secret}"));
            let whole = capture.text.iter().map(|secret| format!("all as {secret}"));
            lines.extend(kept.chain(whole).map(|what| format!("tool {name} {:?} keeps {what}", capture.args)));
        }
        lines.extend(tool.install.iter().map(|install| format!("tool {name} installed by {install}")));
    }
    lines.extend(manifest.hub.facts.iter().map(|topic| format!("hub {topic}")));
    lines.extend(manifest.settings.names.iter().map(|name| format!("setting {name}")));
    lines.extend(manifest.vault.contexts.iter().map(|context| format!("vault {context}")));
    let limits = &manifest.limits;
    lines.extend(limits.memory.iter().map(|v| format!("limit memory {v}")));
    lines.extend(limits.deadline.iter().map(|v| format!("limit deadline {v}")));
    lines.extend(limits.http_calls.map(|v| format!("limit http-calls {v}")));
    lines.extend(limits.db_calls.map(|v| format!("limit db-calls {v}")));
    lines.extend(limits.log_bytes.map(|v| format!("limit log-bytes {v}")));
    if let Some(task) = &manifest.task {
        lines.push(format!("task {}", manifest.task_id()));
        lines.extend(task.cron.iter().map(|v| format!("task cron {v}")));
        lines.extend(task.timezone.iter().map(|v| format!("task timezone {v}")));
        lines.extend(task.max_duration.iter().map(|v| format!("task max-duration {v}")));
        lines.extend(task.queue.iter().map(|v| format!("task queue {v}")));
        lines.extend(task.env.iter().map(|v| format!("task receives {v}")));
        if let Some(retry) = &task.retry {
            let text = |v: &Option<String>| v.clone().unwrap_or_else(|| "-".into());
            lines.push(format!(
                "task retry {} times, {} to {}, factor {}, jitter {}",
                retry.max_attempts,
                text(&retry.min),
                text(&retry.max),
                retry.factor.map_or("-".into(), |f| f.to_string()),
                retry.jitter
            ));
        }
    }
    lines.iter().map(|line| visible(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Manifest {
        let about = "[plugin]\nname = \"x\"\nversion = \"0.1.0\"\nsummary = \"s\"\nworld = \"psn:plugin/task@0.1.0\"\n";
        Manifest::parse(format!("{about}{rest}").as_bytes()).unwrap()
    }

    #[test]
    fn every_wish_is_a_line_of_its_own() {
        let with = |extra: &str| {
            format!("[[http]]\nservice = \"neon\"\nbase = \"https://x.test\"\nroutes = [\"GET /a\"]\n{extra}")
        };
        let plain = with("");
        let one_more: &[(&str, String, &str)] = &[
            ("", plain.clone(), "http neon GET /a"),
            (&plain, with("auth = { bearer = \"KEY\" }\n"), "http neon signed in with KEY"),
            (
                &plain,
                with("inject = { \"GET /a\" = { \"/v/*\" = [\"A_*\"] } }\n"),
                "http neon GET /a is sent A_* at /v/*",
            ),
            (&plain, with("capture = { \"GET /a\" = { \"/u\" = \"URL\" } }\n"), "http neon GET /a keeps /u as URL"),
            ("", "[db]\n\"posts\" = { select = [\"id\"] }\n".into(), "db posts select id"),
            ("", "[db]\n\"posts\" = { delete = true }\n".into(), "db posts delete"),
            ("", "[db]\n\"psn.f(int)\" = { execute = true }\n".into(), "db psn.f(int) execute"),
            ("", "[secrets]\nnames = [\"A\"]\n".into(), "secret A known"),
            ("", "[secrets]\ngenerate = [\"A\"]\n".into(), "secret A made"),
            ("", "[[tool]]\nname = \"git\"\nargs = [[\"log\", \"-1\"]]\n".into(), "tool git [\"log\", \"-1\"]"),
            ("", "[[tool]]\nname = \"git\"\nargs = []\nenv = [\"K\"]\n".into(), "tool git receives K"),
            (
                "[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\n",
                "[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\naddresses = { T_HOST = \"neon\" }\n".into(),
                "tool t told neon in T_HOST",
            ),
            (
                "[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\n",
                "[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\ncapture = [{ args = [\"a\"], text = \"K\" }]\n".into(),
                "tool t [\"a\"] keeps all as K",
            ),
            ("", "[hub]\nfacts = [\"git\"]\n".into(), "hub git"),
            ("", "[settings]\nnames = [\"a.*\"]\n".into(), "setting a.*"),
            ("", "[vault]\ncontexts = [\"oauth:*\"]\n".into(), "vault oauth:*"),
            ("", "[limits]\nmemory = \"1MiB\"\n".into(), "limit memory 1MiB"),
            ("", "[limits]\nlog-bytes = 7\n".into(), "limit log-bytes 7"),
            ("", "[task]\ncron = \"* * * * *\"\n".into(), "task cron * * * * *"),
            ("", "[task]\nqueue = \"q\"\n".into(), "task queue q"),
            ("", "[task]\nenv = [\"E\"]\n".into(), "task receives E"),
            ("", "[task]\nretry = { max-attempts = 3 }\n".into(), "task retry 3 times, - to -, factor -, jitter false"),
        ];
        for (before, after, line) in one_more {
            let (before, after) = (parse(before), parse(after));
            assert_ne!(before.capabilities_hash(), after.capabilities_hash());
            let lines = rights(&after);
            assert!(lines.contains(&(*line).to_owned()), "{line}: {lines:?}");
            assert!(!rights(&before).contains(&(*line).to_owned()), "{line}");
        }
    }

    #[test]
    fn a_line_stays_one() {
        let lines = rights(&parse("[hub]\nfacts = [\"git\\nhub everything\"]\n"));
        assert_eq!(lines, ["hub git\\u{a}hub everything"]);
    }
}
