//! What a policy leaves of a manifest.
use std::collections::BTreeMap;

use super::file::TableRule;
use super::{EVERY, OperatorPolicy};
use crate::capabilities::MeterLimits;
use crate::plugins::manifest::{
    DEFAULT_MEMORY, DbGrant, HttpService, Manifest, covers, default_deadline, parse_bytes, parse_duration,
};
use crate::plugins::vendors::{CountsAs, counts_as, from_root};
use crate::plugins::withheld::{Wish, Withheld};

impl OperatorPolicy {
    /// The manifest that the plugin is run with: what it asks for and the policy allows. What the policy takes away is listed in
    /// [`Manifest::withheld`].
    #[must_use]
    pub fn narrow(&self, asked: &Manifest) -> Manifest {
        let mut left = asked.clone();
        let mut taken = Vec::new();
        let plugin = asked.plugin.name.as_str();
        left.http.retain_mut(|service| self.narrow_service(plugin, service, &mut taken));
        if let Some((section, tables)) = self.rule(plugin, |r| r.db.as_ref()) {
            left.db.retain(|table, grant| narrow_table(section, tables, table, grant, &mut taken));
        }
        if let Some((section, tools)) = self.rule(plugin, |r| r.tools.as_ref()) {
            left.tool.retain(|tool| {
                let allowed = covers_any(tools, &tool.name);
                if !allowed {
                    let line = format!("{} tools = {}", header(section, ""), list(tools, &tool.name));
                    taken.push(Withheld { wish: Wish::Tool(tool.name.clone()), line });
                }
                allowed
            });
        }
        self.narrow_limits(plugin, &mut left, &mut taken);
        left.withheld = taken;
        left
    }

    /// Whether anything of the service is left.
    fn narrow_service(&self, plugin: &str, service: &mut HttpService, taken: &mut Vec<Withheld>) -> bool {
        let name = service.service.clone();
        let kin = counts_as(service);
        let mut refuse = |line| {
            taken.push(Withheld { wish: Wish::Service(name.clone()), line });
            false
        };
        if let Some((section, services)) = self.rule(plugin, |r| r.services.as_ref()) {
            // Under another name it is still the vendor's.
            let vendors = kin.iter().map(|k| k.service);
            let vendor = vendors.clone().find(|_| !vendors.clone().any(|v| covers_any(services, v)));
            if let Some(missing) = Some(name.as_str()).filter(|name| !covers_any(services, name)).or(vendor) {
                return refuse(format!("{} services = {}", header(section, ""), list(services, missing)));
            }
        }
        if let Some((section, hosts)) = self.rule(plugin, |r| r.hosts.as_ref()) {
            // One that cannot be read is no host that anyone allowed.
            let base = url::Url::parse(&service.base).ok();
            let host = base.as_ref().and_then(url::Url::host_str).unwrap_or_default();
            if !hosts.iter().any(|pattern| pattern.matches(host)) {
                let texts: Vec<String> = hosts.iter().map(|h| h.0.clone()).collect();
                return refuse(format!("{} hosts = {}", header(section, ""), list(&texts, host)));
            }
        }
        let base = service.base.clone();
        let line = |route: &str| self.route_line(plugin, &name, &base, &kin, route);
        let routes = std::mem::take(&mut service.routes);
        for route in routes {
            match line(&route) {
                None => service.routes.push(route),
                Some(line) => {
                    taken.push(Withheld { wish: Wish::Route { service: name.clone(), route }, line });
                }
            }
        }
        // A capture goes with its route, and stays as long as that does: without it the guest would see the secret.
        service.capture.retain(|route, _| line(route).is_none());
        !service.routes.is_empty()
    }

    /// What in the policy would have to change for the route to be allowed; none if it is. Rules hold for the route as the manifest
    /// writes it, and as it is below the base of each vendor's service that this one counts as; those that deny it everywhere, also
    /// from the root of its host on.
    fn route_line(&self, plugin: &str, service: &str, base: &str, kin: &[CountsAs], route: &str) -> Option<String> {
        // One that cannot be put together cannot be opened either.
        let whole = from_root(base, route).unwrap_or_else(|| route.to_owned());
        let mut seen = vec![(service, route.to_owned())];
        seen.extend(kin.iter().map(|k| (k.service, k.route(&whole))));
        seen.dedup();
        let denied = seen.iter().find_map(|(service, route)| self.denied(plugin, &[service, EVERY], route));
        denied
            .or_else(|| self.denied(plugin, &[EVERY], &whole))
            .or_else(|| seen.iter().find_map(|(service, route)| self.not_allowed(plugin, service, route)))
    }

    fn denied(&self, plugin: &str, keys: &[&str], route: &str) -> Option<String> {
        self.sections(plugin).find_map(|(section, rules)| {
            keys.iter().find_map(|key| {
                let mut patterns = rules.deny_routes.get(*key).into_iter().flatten();
                let pattern = patterns.find(|pattern| pattern.touches(route))?;
                let header = header(section, ".deny-routes");
                Some(format!("{header} {} without {:?}", toml_key(key), pattern.text()))
            })
        })
    }

    fn not_allowed(&self, plugin: &str, service: &str, route: &str) -> Option<String> {
        let allowed = self.sections(plugin).find_map(|(section, rules)| {
            [service, EVERY].into_iter().find_map(|key| Some((section, key, rules.routes.get(key)?)))
        });
        let (section, key, patterns) = allowed?;
        if patterns.iter().any(|pattern| pattern.covers(route)) {
            return None;
        }
        let texts: Vec<String> = patterns.iter().map(|p| p.text().to_owned()).collect();
        Some(format!("{} {} = {}", header(section, ".routes"), toml_key(key), list(&texts, route)))
    }

    fn narrow_limits(&self, plugin: &str, left: &mut Manifest, taken: &mut Vec<Withheld>) {
        let mut lowered = |section: &str, field: &'static str, to: String, above: String| {
            let line = format!("{} {field} = {above}", header(section, ".limits"));
            taken.push(Withheld { wish: Wish::Limit { field, to }, line });
        };
        if let Some((section, ceiling)) = self.rule(plugin, |r| r.limits.memory.as_ref()) {
            let asked = left.limits.memory.as_deref().and_then(parse_bytes).unwrap_or(DEFAULT_MEMORY);
            if asked > ceiling.bytes {
                let above = left.limits.memory.replace(ceiling.text.clone());
                let above = above.unwrap_or_else(|| format!("{}MiB", DEFAULT_MEMORY >> 20));
                lowered(section, "memory", ceiling.text.clone(), format!("{above:?}"));
            }
        }
        if let Some((section, ceiling)) = self.rule(plugin, |r| r.limits.deadline.as_ref()) {
            let own = left.task.as_ref().and_then(|t| t.max_duration.clone());
            let asked = own.clone().or_else(|| left.limits.deadline.clone());
            let default = default_deadline(left.world());
            if asked.as_deref().and_then(parse_duration).unwrap_or(default) > ceiling.duration {
                left.limits.deadline = Some(ceiling.text.clone());
                if let Some(task) = left.task.as_mut()
                    && own.is_some()
                {
                    task.max_duration = Some(ceiling.text.clone());
                }
                let above = asked.unwrap_or_else(|| format!("{}s", default.as_secs()));
                lowered(section, "deadline", ceiling.text.clone(), format!("{above:?}"));
            }
        }
        let defaults = MeterLimits::default();
        let limits = &mut left.limits;
        let counted = [
            (
                "http-calls",
                &mut limits.http_calls,
                defaults.http_calls,
                self.rule(plugin, |r| r.limits.http_calls.as_ref()),
            ),
            ("db-calls", &mut limits.db_calls, defaults.db_calls, self.rule(plugin, |r| r.limits.db_calls.as_ref())),
            (
                "log-bytes",
                &mut limits.log_bytes,
                defaults.log_bytes,
                self.rule(plugin, |r| r.limits.log_bytes.as_ref()),
            ),
        ];
        for (field, limit, default, rule) in counted {
            let asked = limit.unwrap_or(default);
            if let Some((section, ceiling)) = rule
                && asked > *ceiling
            {
                *limit = Some(*ceiling);
                lowered(section, field, ceiling.to_string(), asked.to_string());
            }
        }
    }
}

/// Whether anything of the grant is left.
fn narrow_table(
    section: &str,
    tables: &BTreeMap<String, TableRule>,
    table: &str,
    grant: &mut DbGrant,
    taken: &mut Vec<Withheld>,
) -> bool {
    let none = TableRule::default();
    let named = tables.iter().find(|(name, _)| unqualified(name) == unqualified(table)).map(|(_, rule)| rule);
    let rule = named.or_else(|| tables.get(EVERY)).unwrap_or(&none);
    let mut take = |right: &'static str, columns: Vec<String>| {
        let value = if columns.is_empty() { "true".to_owned() } else { format!("{columns:?}") };
        let line = format!("{} {table:?} = {{ {right} = {value} }}", header(section, ".db"));
        taken.push(Withheld { wish: Wish::Table { table: table.to_owned(), right, columns }, line });
    };
    for (right, asked, allowed) in [
        ("select", &mut grant.select, &rule.select),
        ("insert", &mut grant.insert, &rule.insert),
        ("update", &mut grant.update, &rule.update),
    ] {
        let (kept, lost): (Vec<_>, Vec<_>) =
            std::mem::take(asked).into_iter().partition(|c| allowed.iter().any(|a| a == EVERY || a == c));
        *asked = kept;
        if !lost.is_empty() {
            take(right, lost);
        }
    }
    for (right, asked, allowed) in
        [("delete", &mut grant.delete, rule.delete), ("execute", &mut grant.execute, rule.execute)]
    {
        if *asked && !allowed {
            *asked = false;
            take(right, Vec::new());
        }
    }
    *grant != DbGrant::default()
}

/// `public` is where names without a schema are.
fn unqualified(name: &str) -> &str {
    name.strip_prefix("public.").unwrap_or(name)
}

/// Names, of which `*` alone is every one and a trailing `*` a prefix.
fn covers_any(names: &[String], name: &str) -> bool {
    names.iter().any(|n| n == EVERY) || covers(names, name)
}

/// `[plugin."*".routes]`
fn header(section: &str, below: &str) -> String {
    format!("[plugin.{}{below}]", toml_key(section))
}

fn toml_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { key.to_owned() } else { format!("{key:?}") }
}

/// The list with one more, as TOML has it.
fn list(items: &[String], more: &str) -> String {
    let quoted: Vec<String> = items.iter().map(String::as_str).chain([more]).map(|i| format!("{i:?}")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = r#"
[plugin]
name = "x"
version = "0.1.0"
world = "psn:plugin/step@0.1.0"
summary = "s"
[[http]]
service = "neon"
base = "https://console.neon.tech/api/v2"
auth = { bearer = "NEON_API_KEY" }
routes = ["GET /projects", "POST /projects", "GET /projects/{project}", "DELETE /projects/{project}"]
capture = { "POST /projects" = { "/uri" = "DATABASE_URL" }, "GET /projects/{p}?pooled=true" = { "/uri" = "DATABASE_URL" } }
[[http]]
service = "trigger"
base = "https://api.trigger.dev"
routes = ["GET /api/v2/whoami"]
[db]
"posts" = { select = ["id", "status"], update = ["status"], delete = true }
"psn.f(int)" = { execute = true }
[[tool]]
name = "trigger"
args = [["deploy"]]
[limits]
memory = "64MiB"
http-calls = 50
"#;

    fn narrow(policy: &str) -> Manifest {
        OperatorPolicy::parse(policy).unwrap().narrow(&Manifest::parse(ASKED.as_bytes()).unwrap())
    }

    fn lines(manifest: &Manifest) -> Vec<String> {
        manifest.withheld.iter().map(|w| format!("{} | {}", w.wish, w.line)).collect()
    }

    #[test]
    fn no_rule_takes_nothing_and_is_the_same_manifest() {
        let asked = Manifest::parse(ASKED.as_bytes()).unwrap();
        for policy in ["", "[plugin.other]\ntools = []\n", "[plugin.\"*\"]\ntools = [\"*\"]\nservices = [\"*\"]\n"] {
            assert_eq!(narrow(policy), asked, "{policy}");
        }
    }

    #[test]
    fn services_and_hosts() {
        let left = narrow("[plugin.\"*\"]\nservices = [\"trigger\"]\n");
        assert_eq!(left.http.len(), 1);
        assert_eq!(lines(&left), ["http neon | [plugin.\"*\"] services = [\"trigger\", \"neon\"]"]);
        let left = narrow("[plugin.x]\nhosts = [\"*.trigger.dev\", \"neon.tech\"]\n");
        assert_eq!(left.http[0].service, "trigger");
        assert_eq!(
            lines(&left),
            ["http neon | [plugin.x] hosts = [\"*.trigger.dev\", \"neon.tech\", \"console.neon.tech\"]"]
        );
    }

    #[test]
    fn routes_are_allowed_whole_and_denied_where_they_are_touched() {
        let left = narrow("[plugin.\"*\".routes]\nneon = [\"GET /**\"]\n");
        assert_eq!(left.http[0].routes, ["GET /projects", "GET /projects/{project}"]);
        // Of the captures, the one whose route is left.
        assert_eq!(left.http[0].capture.keys().collect::<Vec<_>>(), ["GET /projects/{p}?pooled=true"]);
        assert_eq!(left.http[1].routes.len(), 1, "the other service is not restricted");
        assert_eq!(
            lines(&left)[0],
            "http neon POST /projects | [plugin.\"*\".routes] neon = [\"GET /**\", \"POST /projects\"]"
        );
        // A rule for one project does not allow the route for all of them, and a denial of one denies the route.
        assert_eq!(narrow("[plugin.x.routes]\nneon = [\"* /projects/mine\"]\n").http[0].service, "trigger");
        let left = narrow("[plugin.x.deny-routes]\nneon = [\"DELETE /projects/mine\"]\n");
        assert_eq!(left.http[0].routes.len(), 3);
        assert_eq!(
            lines(&left),
            ["http neon DELETE /projects/{project} | [plugin.x.deny-routes] neon without \"DELETE /projects/mine\""]
        );
    }

    #[test]
    fn a_vendor_s_service_is_one_under_any_name_and_base() {
        let narrow = |policy: &str, service: &str, base: &str, extra: &str| {
            let about = ASKED.split("[[http]]").next().unwrap();
            let asked = format!("{about}[[http]]\nservice = {service:?}\nbase = {base:?}\n{extra}\n");
            OperatorPolicy::parse(policy).unwrap().narrow(&Manifest::parse(asked.as_bytes()).unwrap())
        };
        let deny = "[plugin.\"*\".deny-routes]\nneon = [\"DELETE /projects/{project}\"]\n";
        for (service, base, route) in [
            ("neon", "https://console.neon.tech", "DELETE /api/v2/projects/{project}"),
            ("n", "https://console.neon.tech/api/v2", "DELETE /projects/{project}"),
            ("n", "https://CONSOLE.neon.tech/api/v2/", "DELETE /projects/{project}"),
            ("n", "https://console.neon.tech/api", "DELETE /v2/projects/{project}"),
            ("n", "https://console.neon.tech/x/../api/v2/projects", "DELETE /{project}"),
            ("trigger", "https://console.neon.tech", "DELETE /{a}/{b}/projects/{c}"),
        ] {
            let left = narrow(deny, service, base, &format!("routes = [{route:?}, \"GET /kept\"]"));
            assert_eq!(left.http[0].routes, ["GET /kept"], "{service} {base} {route}");
            let every = deny.replace("neon =", "\"*\" =");
            let left = narrow(&every, service, base, &format!("routes = [{route:?}, \"GET /kept\"]"));
            assert_eq!(left.http[0].routes, ["GET /kept"], "every service: {service} {base} {route}");
        }
        // Everywhere is everywhere, from the root of a host that psn knows nothing of on.
        let admin = "[plugin.\"*\".deny-routes]\n\"*\" = [\"* /admin/**\"]\n";
        assert!(narrow(admin, "web", "https://web.example/admin", "routes = [\"GET /users\"]").http.is_empty());
        // What is allowed of the service is what is allowed of it under another name, and beside its base nothing is.
        let allow = "[plugin.\"*\".routes]\nneon = [\"GET /**\"]\n";
        let routes = "routes = [\"GET /api/v2/projects\", \"POST /api/v2/projects\"]";
        let left = narrow(allow, "n", "https://console.neon.tech", routes);
        assert_eq!(left.http[0].routes, ["GET /api/v2/projects"]);
        let left = narrow("[plugin.\"*\"]\nservices = [\"n\"]\n", "n", "https://console.neon.tech", routes);
        assert_eq!(lines(&left), ["http n | [plugin.\"*\"] services = [\"n\", \"neon\"]"]);
        // Of two services at one place, the credential says which it is.
        let deny = "[plugin.\"*\".deny-routes]\ntrigger-env = [\"GET /a\"]\n";
        let signed = |secret: &str| format!("auth = {{ bearer = {secret:?} }}\nroutes = [\"GET /a\"]");
        let left = |service: &str, secret: &str| narrow(deny, service, "https://api.trigger.dev", &signed(secret));
        assert_eq!(left("trigger", "TRIGGER_ACCESS_TOKEN").http.len(), 1);
        assert!(left("trigger", "TRIGGER_SECRET_KEY").http.is_empty());
        assert!(left("t", "TRIGGER_ACCESS_TOKEN").http.is_empty());
    }

    #[test]
    fn the_own_section_replaces_and_denials_add_up() {
        let policy = "[plugin.\"*\"]\ntools = []\n[plugin.\"*\".deny-routes]\n\"*\" = [\"DELETE /**\"]\n\
                      [plugin.x]\ntools = [\"trigger\"]\n[plugin.x.routes]\n\"*\" = [\"* /**\"]\n";
        let left = narrow(policy);
        assert_eq!(left.tool.len(), 1);
        assert!(!left.http[0].routes.contains(&"DELETE /projects/{project}".to_owned()));
        assert!(narrow("[plugin.\"*\"]\ntools = [\"tri*\"]\n").tool.len() == 1);
        assert_eq!(
            lines(&narrow("[plugin.\"*\"]\ntools = [\"git\"]\n")),
            ["tool trigger | [plugin.\"*\"] tools = [\"git\", \"trigger\"]"]
        );
    }

    #[test]
    fn tables_columns_and_functions() {
        let left = narrow("[plugin.\"*\".db]\n\"public.posts\" = { select = [\"*\"], update = [\"title\"] }\n");
        assert_eq!(left.db["posts"], DbGrant { select: vec!["id".into(), "status".into()], ..DbGrant::default() });
        assert!(!left.db.contains_key("psn.f(int)"));
        assert_eq!(
            lines(&left),
            [
                "db posts update status | [plugin.\"*\".db] \"posts\" = { update = [\"status\"] }",
                "db posts delete | [plugin.\"*\".db] \"posts\" = { delete = true }",
                "db psn.f(int) execute | [plugin.\"*\".db] \"psn.f(int)\" = { execute = true }",
            ]
        );
        assert!(narrow("[plugin.x]\ndb = {}\n").db.is_empty());
        assert_eq!(narrow("[plugin.x.db]\n\"*\" = { execute = true }\n").db.len(), 1);
    }

    #[test]
    fn ceilings_lower_wishes_and_defaults() {
        let left =
            narrow("[plugin.\"*\".limits]\nmemory = \"32MiB\"\ndeadline = \"10s\"\nhttp-calls = 100\ndb-calls = 5\n");
        assert_eq!(left.limits.memory.as_deref(), Some("32MiB"));
        assert_eq!(left.limits.deadline.as_deref(), Some("10s"));
        assert_eq!((left.limits.http_calls, left.limits.db_calls, left.limits.log_bytes), (Some(50), Some(5), None));
        assert_eq!(
            lines(&left),
            [
                "limit memory above 32MiB | [plugin.\"*\".limits] memory = \"64MiB\"",
                "limit deadline above 10s | [plugin.\"*\".limits] deadline = \"120s\"",
                "limit db-calls above 5 | [plugin.\"*\".limits] db-calls = 10000",
            ]
        );
    }

    #[test]
    fn what_is_left_asks_for_nothing_new() {
        // Narrowing twice is narrowing once.
        let policy = OperatorPolicy::parse(
            "[plugin.\"*\"]\nservices = [\"neon\"]\ntools = []\n[plugin.\"*\".routes]\nneon = [\"GET /**\"]\n[plugin.\"*\".limits]\nmemory = \"1MiB\"\n",
        )
        .unwrap();
        let once = policy.narrow(&Manifest::parse(ASKED.as_bytes()).unwrap());
        let twice = policy.narrow(&once);
        assert!(twice.withheld.is_empty(), "{:?}", twice.withheld);
        assert_eq!(twice.capabilities_hash(), once.capabilities_hash());
    }
}
