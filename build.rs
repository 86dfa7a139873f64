//! What the program is built with, for `kvmha --version`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a build script: it has no deadline, and speaks to cargo")]

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    // "rustc 1.88.0 (6b00bc388 2025-06-23)"
    let rustc = said(&rustc, &["--version"]).and_then(|text| text.split_whitespace().nth(1).map(str::to_owned));
    let libvirt = said("pkg-config", &["--modversion", "libvirt"]);
    for (name, value) in [("RUSTC", rustc), ("LIBVIRT", libvirt), ("TARGET", env::var("TARGET").ok())] {
        println!("cargo:rustc-env=KVMHA_BUILT_{name}={}", value.unwrap_or_else(|| "unknown".into()));
    }
}

/// What a program says, in one line.
fn said(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty() && !text.contains('\n'))
}
