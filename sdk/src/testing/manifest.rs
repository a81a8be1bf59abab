//! What the plugin's manifest allows, as far as the doubles check it. The host decides with its own, stricter reading.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::http::{RawRequest, RawResponse};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Manifest {
    http: Vec<Service>,
    pub(crate) db: Option<toml::Table>,
    secrets: Secrets,
    tool: Vec<Tool>,
    hub: Facts,
    settings: Settings,
    vault: Vault,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    service: String,
    auth: Option<Auth>,
    routes: Vec<String>,
    /// Route, then JSON pointer, then secret.
    capture: BTreeMap<String, BTreeMap<String, String>>,
    /// Route, then JSON pointer, then secrets.
    inject: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Auth {
    Bearer(String),
    Header { secret: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Secrets {
    names: Vec<String>,
    generate: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tool {
    name: String,
    args: Vec<Vec<String>>,
    env: Vec<String>,
    capture: Vec<ToolCapture>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolCapture {
    args: Vec<String>,
    /// JSON pointer, then secret.
    json: BTreeMap<String, String>,
    /// The secret that the whole output is.
    text: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Facts {
    facts: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    names: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Vault {
    contexts: Vec<String>,
}

impl Manifest {
    pub(crate) fn parse(text: &str) -> Self {
        toml::from_str(text).unwrap_or_else(|error| panic!("plugin.toml: {error}"))
    }

    fn service(&self, name: &str) -> &Service {
        let service = self.http.iter().find(|service| service.service == name);
        service.unwrap_or_else(|| panic!("plugin.toml has no [[http]] with service = \"{name}\""))
    }

    /// Panics with the line that would allow the request.
    pub(crate) fn check_request(&self, request: &RawRequest) {
        let service = self.service(&request.service);
        let path = request.path.split('?').next().unwrap_or_default();
        let line = format!("{} {path}", request.method.as_str());
        assert!(
            service.routes.iter().any(|route| route_matches(route, &line)),
            "plugin.toml: routes of service \"{}\" lack a line for \"{line}\"",
            request.service
        );
        let here = service.inject.iter().filter(|(route, _)| route_matches(route, &line));
        let places: Vec<_> = here.flat_map(|(_, places)| places).collect();
        for (at, name) in references(request.body.as_deref().unwrap_or_default()) {
            assert!(
                places.iter().any(|(pointer, names)| pointer_matches(pointer, &at) && allows(names, &name)),
                "plugin.toml: inject of service \"{}\" lacks \"{line}\" = {{ \"{at}\" = [\"{name}\"] }}",
                request.service
            );
        }
    }

    /// Takes the secrets out of a reply, as the host does: each with its name.
    pub(crate) fn capture(&self, request: &RawRequest, reply: &mut RawResponse) -> Vec<(String, String)> {
        if !(200..300).contains(&reply.status) {
            return Vec::new();
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let line = format!("{} {path}", request.method.as_str());
        let matching = self.service(&request.service).capture.iter().filter(|(key, _)| {
            let (route, wanted) = key.split_once('?').unwrap_or((key, ""));
            let present = |pair: &str| pair.is_empty() || query.split('&').any(|given| given == pair);
            route_matches(route, &line) && wanted.split('&').all(present)
        });
        // The most specific one wins: the one that asks for the most of the query.
        let Some((_, pointers)) = matching.max_by_key(|(key, _)| key.len()) else {
            return Vec::new();
        };
        let Ok(mut body) = serde_json::from_slice::<serde_json::Value>(&reply.body) else {
            return Vec::new();
        };
        let mut captured = Vec::new();
        for (pointer, name) in pointers {
            if let Some(slot) = body.pointer_mut(pointer)
                && let Some(value) = slot.as_str()
            {
                if name == "-" {
                    *slot = "[redacted]".into();
                    continue;
                }
                captured.push((name.clone(), value.to_owned()));
                *slot = crate::secrets::reference(name).into();
            }
        }
        reply.body = body.to_string().into_bytes();
        captured
    }

    pub(crate) fn check_secret(&self, name: &str) {
        let of_services = self.http.iter().flat_map(|service| {
            let auth = service.auth.as_ref().map(|auth| match auth {
                Auth::Bearer(secret) | Auth::Header { secret } => secret,
            });
            let captured = service.capture.values().flat_map(BTreeMap::values);
            service.inject.values().flat_map(BTreeMap::values).flatten().chain(auth).chain(captured)
        });
        let of_tools = self.tool.iter().flat_map(|tool| {
            let captured = tool.capture.iter().flat_map(|capture| capture.json.values().chain(&capture.text));
            tool.env.iter().chain(captured)
        });
        let names = self.secrets.names.iter().chain(&self.secrets.generate).chain(of_services).chain(of_tools);
        assert!(
            names.into_iter().any(|pattern| covers(pattern, name)),
            "plugin.toml: [secrets] names lacks \"{name}\""
        );
    }

    pub(crate) fn check_generate(&self, name: &str) {
        assert!(allows(&self.secrets.generate, name), "plugin.toml: [secrets] generate lacks \"{name}\"");
    }

    pub(crate) fn check_setting(&self, name: &str) {
        let allowed = name.starts_with("hub.") || self.settings.names.iter().any(|known| known == name);
        assert!(allowed, "plugin.toml: [settings] names lacks \"{name}\"");
    }

    pub(crate) fn check_facts(&self, topic: &str) {
        assert!(self.hub.facts.iter().any(|known| known == topic), "plugin.toml: [hub] facts lacks \"{topic}\"");
    }

    pub(crate) fn check_context(&self, context: &str) {
        assert!(allows(&self.vault.contexts, context), "plugin.toml: [vault] contexts lacks \"{context}\"");
    }

    pub(crate) fn check_tool(&self, name: &str, args: &[&str]) {
        let allowed = self.tool.iter().any(|tool| tool.name == name && tool.args.iter().any(|shape| fits(shape, args)));
        assert!(allowed, "plugin.toml: [[tool]] \"{name}\" lacks the arguments {args:?}");
    }

    /// Takes the secrets out of what a program printed, as the host does: each with its name.
    pub(crate) fn capture_output(&self, name: &str, args: &[&str], stdout: &mut String) -> Vec<(String, String)> {
        let tools = self.tool.iter().filter(|tool| tool.name == name);
        let Some(capture) = tools.flat_map(|tool| &tool.capture).find(|capture| fits(&capture.args, args)) else {
            return Vec::new();
        };
        let mut captured = Vec::new();
        if let Some(name) = &capture.text {
            captured.push((name.clone(), stdout.trim().to_owned()));
            *stdout = crate::secrets::reference(name);
        } else if let Ok(mut json) = serde_json::from_str::<serde_json::Value>(stdout) {
            for (pointer, name) in &capture.json {
                if let Some(slot) = json.pointer_mut(pointer)
                    && let Some(value) = slot.as_str()
                {
                    captured.push((name.clone(), value.to_owned()));
                    *slot = crate::secrets::reference(name).into();
                }
            }
            *stdout = json.to_string();
        }
        captured
    }
}

/// Whether the arguments have this shape.
fn fits(shape: &[String], args: &[&str]) -> bool {
    let fits_one = |(want, arg): (&String, &&str)| if want == "{}" { !arg.starts_with('-') } else { want == arg };
    shape.len() == args.len() && shape.iter().zip(args).all(fits_one)
}

fn allows(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| covers(pattern, name))
}

fn covers(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

/// Whether `GET /projects/7` is an instance of `GET /projects/{project}`.
pub(crate) fn route_matches(route: &str, line: &str) -> bool {
    let (mut wanted, mut given) = (route.split('/'), line.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(want), Some(give)) => {
                let any = want.starts_with('{') && want.ends_with('}');
                if !(want == give || (any && !give.is_empty())) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// `*` is any one key or index.
fn pointer_matches(wanted: &str, given: &str) -> bool {
    let (wanted, given) = (wanted.split('/'), given.split('/'));
    wanted.clone().count() == given.clone().count() && wanted.zip(given).all(|(want, give)| want == "*" || want == give)
}

/// The references to secrets in a JSON body: JSON pointer and name.
fn references(body: &[u8]) -> Vec<(String, String)> {
    fn walk(value: &serde_json::Value, at: &str, found: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::String(text) => {
                let names = text.split("{{secret:").skip(1).filter_map(|rest| rest.split_once("}}"));
                found.extend(names.map(|(name, _)| (at.to_owned(), name.to_owned())));
            }
            serde_json::Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, item)| walk(item, &format!("{at}/{i}"), found));
            }
            serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| {
                walk(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }),
            _ => {}
        }
    }
    let mut found = Vec::new();
    // In what is not JSON no place can be named: the host refuses a reference there.
    let json = serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into());
    walk(&json, "", &mut found);
    found
}
