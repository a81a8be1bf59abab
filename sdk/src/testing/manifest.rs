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
    inject: Vec<String>,
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
        for name in references(request.body.as_deref().unwrap_or_default()) {
            assert!(
                allows(&service.inject, &name),
                "plugin.toml: inject of service \"{}\" lacks \"{name}\"",
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
            service.inject.iter().chain(auth).chain(captured)
        });
        let names = self.secrets.names.iter().chain(&self.secrets.generate).chain(of_services);
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
        let fits = |shape: &Vec<String>| {
            shape.len() == args.len()
                && shape.iter().zip(args).all(
                    |(want, arg)| {
                        if want == "{}" { !arg.starts_with('-') } else { want == arg }
                    },
                )
        };
        let allowed = self.tool.iter().any(|tool| tool.name == name && tool.args.iter().any(fits));
        assert!(allowed, "plugin.toml: [[tool]] \"{name}\" lacks the arguments {args:?}");
    }
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

fn references(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    let found = text.split("{{secret:").skip(1).filter_map(|rest| rest.split_once("}}"));
    found.map(|(name, _)| name.to_owned()).collect()
}
