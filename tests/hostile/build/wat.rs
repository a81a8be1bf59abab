//! Tasks whose core module is written as text: for what no compiler would emit.
use std::path::Path;

use anyhow::{Context, Result};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::fixtures::Attack;

/// Where an answer of `{}` lies in each of them: result<string, failure>, ok.
const ANSWER: &str =
    r#"(data (i32.const 2048) "\00\00\00\00\00\00\00\00\00\09\00\00\02\00\00\00") (data (i32.const 2304) "{}")"#;

const WASI: &[(&str, &str)] = &[
    (
        "io.wit",
        "package wasi:io@0.2.6;
         interface error { resource error; }
         interface streams {
           use error.{error};
           variant stream-error { last-operation-failed(error), closed }
           resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
         }",
    ),
    (
        "cli.wit",
        "package wasi:cli@0.2.6;
         interface stdout { use wasi:io/streams@0.2.6.{output-stream}; get-stdout: func() -> output-stream; }
         interface stderr { use wasi:io/streams@0.2.6.{output-stream}; get-stderr: func() -> output-stream; }
         interface environment { get-environment: func() -> list<tuple<string, string>>; get-arguments: func() -> list<string>; }
         interface exit { exit: func(status: result); }",
    ),
    (
        "filesystem.wit",
        "package wasi:filesystem@0.2.6;
         interface types { resource descriptor; }
         interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }",
    ),
    (
        "random.wit",
        "package wasi:random@0.2.6;
         interface random { get-random-bytes: func(len: u64) -> list<u8>; }",
    ),
];

const WASI_IMPORTS: &str = r#"
(import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
(import "wasi:cli/stderr@0.2.6" "get-stderr" (func $stderr (result i32)))
(import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
(import "wasi:cli/environment@0.2.6" "get-environment" (func $environment (param i32)))
(import "wasi:cli/environment@0.2.6" "get-arguments" (func $arguments (param i32)))
(import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))
(import "wasi:filesystem/preopens@0.2.6" "get-directories" (func $directories (param i32)))
(import "wasi:random/random@0.2.6" "get-random-bytes" (func $random (param i64 i32)))"#;

const WASI_WORLD: &str = "import wasi:cli/stdout@0.2.6; import wasi:cli/stderr@0.2.6; import wasi:cli/environment@0.2.6; import wasi:cli/exit@0.2.6; \
                          import wasi:filesystem/preopens@0.2.6; import wasi:random/random@0.2.6;";

pub fn component(attack: &Attack, wit: &Path) -> Result<Vec<u8>> {
    let body = attack.body.as_deref().unwrap_or_default();
    let imports = format!("{}{}", if attack.wasi { WASI_IMPORTS } else { "" }, attack.imports);
    task(&imports, &attack.module, body, attack.pages.unwrap_or(1), attack.wasi, wit)
}

/// A task of one module.
pub fn task(imports: &str, module: &str, body: &str, pages: u32, wasi: bool, wit: &Path) -> Result<Vec<u8>> {
    let text = format!(
        "(module
           (import \"psn:plugin/events@0.1.0\" \"log\" (func $log (param i32 i32 i32 i32 i32)))
           {imports}
           (memory (export \"memory\") {pages})
           {ANSWER}
           (global $next (mut i32) (i32.const 32768))
           (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32)
             global.get $next
             (global.set $next (i32.and (i32.add (i32.add (global.get $next) (local.get 3)) (i32.const 7)) (i32.const -8))))
           {module}
           (func $run (export \"psn:plugin/runner@0.1.0#run\") (param i32 i32 i32 i64) (result i32) {body})
           (func (export \"cabi_post_psn:plugin/runner@0.1.0#run\") (param i32)))"
    );
    let mut module = wat::parse_str(&text).with_context(|| text.clone())?;
    let mut resolve = Resolve::default();
    resolve.push_dir(wit)?;
    let mut more = "";
    if wasi {
        for (name, package) in WASI {
            resolve.push_str(name, package)?;
        }
        more = WASI_WORLD;
    }
    let package = resolve.push_str(
        "hostile.wit",
        &format!("package psn:hostile; world guest {{ include psn:plugin/task@0.1.0; {more} }}"),
    )?;
    let world = resolve.select_world(&[package], Some("guest"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().validate(true).module(&module)?.encode()
}
