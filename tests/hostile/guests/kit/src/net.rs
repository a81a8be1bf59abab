//! Calls services in every way that the contract can express, and some that it means to exclude.
use crate::{Machine, Told};
use psn_plugin::bindings::imports::psn::plugin::http;

/// `http SERVICE METHOD PATH [BODY [NAME VALUE]…]`; a body `-` is none, and `again` before it says that the call may be repeated.
pub fn operations(_: &mut Machine, line: &[String]) -> Option<Told> {
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["http", service, method, path, rest @ ..] => {
            let (body, headers) = rest.split_first().unwrap_or((&"-", &[]));
            Some(send(service, method, path, body, headers))
        }
        words => crate::secrets(words),
    }
}

fn send(service: &str, method: &str, path: &str, body: &str, headers: &[&str]) -> Told {
    let request = http::Request {
        service: service.to_owned(),
        method: match method {
            "HEAD" => http::Method::Head,
            "POST" => http::Method::Post,
            "PUT" => http::Method::Put,
            "PATCH" => http::Method::Patch,
            "DELETE" => http::Method::Delete,
            _ => http::Method::Get,
        },
        path: path.to_owned(),
        headers: headers.chunks_exact(2).map(|h| (h[0].to_owned(), h[1].to_owned())).collect(),
        body: (body != "-").then(|| body.as_bytes().to_vec()),
        idempotent: true,
    };
    match http::send(&request) {
        Ok(reply) => {
            let headers: Vec<String> = reply.headers.iter().map(|(n, v)| format!("{n}: {v}")).collect();
            Ok(format!("{} {} {}", reply.status, headers.join("; "), String::from_utf8_lossy(&reply.body)))
        }
        Err(error) => Err(error.code),
    }
}
