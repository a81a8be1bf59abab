//! Bytes that are no decent component.
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};

use super::wat_guest::task;

/// The section that holds a manifest.
const SECTION: &str = "psn:manifest";

pub fn bytes(name: &str, manifest: &str, wit: &Path) -> Result<Vec<u8>> {
    let plain = |module: &str| -> Result<Vec<u8>> {
        let mut bytes = task("", module, "i32.const 2048", 1, false, wit)?;
        custom(&mut bytes, SECTION, manifest.as_bytes());
        Ok(bytes)
    };
    Ok(match name {
        "text" => b"#!/bin/sh\necho hostile\n".to_vec(),
        "empty" => Vec::new(),
        "core-module" => {
            let mut bytes = wat::parse_str("(module (func (export \"run\")))")?;
            custom(&mut bytes, SECTION, manifest.as_bytes());
            bytes
        }
        "truncated" => {
            let bytes = plain("")?;
            bytes[..bytes.len() / 2].to_vec()
        }
        // A section that says it is longer than the file.
        "lying-section" => {
            let mut bytes = plain("")?;
            bytes.extend([0, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]);
            bytes
        }
        // A number that never ends.
        "endless-leb" => {
            let mut bytes = plain("")?;
            bytes.push(0);
            bytes.extend([0x80; 64]);
            bytes
        }
        "bit-flips" => {
            let mut bytes = plain("")?;
            for at in (64..bytes.len() - manifest.len()).step_by(97) {
                bytes[at] ^= 0x5a;
            }
            bytes
        }
        // The type of a function that is not there.
        "invalid-module" => {
            let mut bytes = wat::parse_str("(component (core module (func (call 99))))")?;
            custom(&mut bytes, SECTION, manifest.as_bytes());
            bytes
        }
        "no-manifest" => task("", "", "i32.const 2048", 1, false, wit)?,
        "binary-manifest" => {
            let mut bytes = task("", "", "i32.const 2048", 1, false, wit)?;
            custom(&mut bytes, SECTION, &[0xff, 0xfe, 0x00, 0x80]);
            bytes
        }
        "long-manifest" => {
            let mut bytes = task("", "", "i32.const 2048", 1, false, wit)?;
            custom(&mut bytes, SECTION, format!("{manifest}# {}\n", "x".repeat(70_000)).as_bytes());
            bytes
        }
        // The second manifest asks for more, inside of a component inside.
        "nested-manifest" => {
            let mut inner = b"\0asm\x0d\0\x01\0".to_vec();
            custom(&mut inner, SECTION, format!("{manifest}\n[hub]\nfacts = [\"git\"]\n").as_bytes());
            let mut bytes = plain("")?;
            section(&mut bytes, 4, &inner);
            bytes
        }
        // A grant of its own, in the hope that somebody reads it.
        "own-grant" => {
            let mut bytes = plain("")?;
            for name in ["psn:grant", "psn:lock", "psn.lock", "psn:policy"] {
                custom(&mut bytes, name, b"granted_by = \"psn\"\ncapabilities = \"*\"\n");
            }
            bytes
        }
        "too-large" => {
            let mut bytes = plain("")?;
            custom(&mut bytes, "padding", &vec![0; 33 << 20]);
            bytes
        }
        "many-functions" => {
            let mut module = String::new();
            for n in 0..60_000 {
                write!(module, "(func (result i32) i32.const {n})")?;
            }
            plain(&module)?
        }
        "one-long-function" => plain(&format!("(func {})", "(block (br_if 0 (i32.const 1)))".repeat(120_000)))?,
        // Each nested component makes two of the one before: 2^30 instances, in some 300 bytes.
        "instances-of-instances" => {
            let mut text = String::from("(component (component $c0 (core module $m) (core instance (instantiate $m)))");
            for n in 1..30 {
                let before = n - 1;
                write!(
                    text,
                    "(component $c{n} (alias outer 1 $c{before} (component $b)) (instance (instantiate $b)) (instance (instantiate $b)))"
                )?;
            }
            text += "(instance (instantiate $c29)))";
            let mut bytes = wat::parse_str(&text)?;
            custom(&mut bytes, SECTION, manifest.as_bytes());
            bytes
        }
        "many-core-instances" => plain_with_modules(plain("")?, "(module)", 200)?,
        "many-memories" => plain_with_modules(plain("")?, "(module (memory 1024))", 40)?,
        "memories-together" => plain_with_modules(plain("")?, "(module (memory 512))", 4)?,
        "many-tables" => plain_with_modules(plain("")?, "(module (table 1000 funcref))", 40)?,
        // What the contract has no name for.
        "unknown-import" => {
            let mut bytes = wat::parse_str(
                "(component (import \"wasi:sockets/tcp@9.9.9\" (instance)) (import \"evil:host/shell@0.1.0\" (instance)) \
                 (instance $e) (export \"psn:plugin/runner@0.1.0\" (instance $e)))",
            )?;
            custom(&mut bytes, SECTION, manifest.as_bytes());
            bytes
        }
        "other-version" => {
            let mut bytes = wat::parse_str(
                "(component (import \"psn:plugin/events@9.0.0\" (instance)) (instance $e) (export \"psn:plugin/runner@0.1.0\" (instance $e)))",
            )?;
            custom(&mut bytes, SECTION, manifest.as_bytes());
            bytes
        }
        // Exports the interface, but not the function in it.
        "empty-export" => {
            let mut bytes =
                wat::parse_str("(component (instance $e) (export \"psn:plugin/runner@0.1.0\" (instance $e)))")?;
            custom(&mut bytes, SECTION, manifest.as_bytes());
            bytes
        }
        // The contract's function under another type.
        "other-type" => {
            let mut bytes = wat::parse_str(
                "(component (import \"psn:plugin/state@0.1.0\" (instance (export \"get\" (func (param \"key\" u64) (result u64))))) \
                 (instance $e) (export \"psn:plugin/runner@0.1.0\" (instance $e)))",
            )?;
            custom(&mut bytes, SECTION, manifest.as_bytes());
            bytes
        }
        "threads" => plain_with_modules(plain("")?, "(module (memory 1 2 shared))", 1)?,
        "memory64" => plain_with_modules(plain("")?, "(module (memory i64 1))", 1)?,
        _ => bail!("build/raw.rs does not know {name}"),
    })
}

/// The component with a further core module, instantiated that often.
fn plain_with_modules(mut bytes: Vec<u8>, module: &str, times: u32) -> Result<Vec<u8>> {
    let modules = core_modules(&bytes);
    section(&mut bytes, 1, &wat::parse_str(module)?);
    for _ in 0..times {
        let mut instance = vec![1, 0];
        leb(&mut instance, modules);
        instance.push(0);
        section(&mut bytes, 2, &instance);
    }
    Ok(bytes)
}

/// How many core modules lie in the component itself: sections of number 1.
fn core_modules(bytes: &[u8]) -> u32 {
    let (mut at, mut found) = (8, 0);
    while at < bytes.len() {
        found += u32::from(bytes[at] == 1);
        at += 1;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = bytes[at];
            at += 1;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        at += length;
    }
    found
}

fn custom(out: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut body = Vec::new();
    leb(&mut body, u32::try_from(name.len()).unwrap_or(u32::MAX));
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(content);
    section(out, 0, &body);
}

fn section(out: &mut Vec<u8>, id: u8, body: &[u8]) {
    out.push(id);
    leb(out, u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(body);
}

fn leb(out: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}
