//! What is printed and does not arrive is not taken for said.

use std::fs::File;
use std::process::{Command, Stdio};

fn kvmha(words: &[&str], out: Stdio) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kvmha"))
        .args(words)
        .env_clear()
        .envs(crate::call::counts())
        .stdout(out)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A library that ends the process when it is told of its end: so does libvirt's, now and then, under a call that was given up on.
#[test]
fn the_end_is_nothing_that_a_library_hears_of() {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("end.c"), folder.path().join("end.so"));
    std::fs::write(&source, "#include <stdlib.h>\n__attribute__((destructor)) static void end(void) { abort(); }\n").unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
    assert!(compiled.success());
    for (words, begin) in [(&["--version"][..], "kvmha "), (&["agent", "meta-data"], "<?xml ")] {
        let mut call = Command::new(env!("CARGO_BIN_EXE_kvmha"));
        let output = call.args(words).env_clear().env("LD_PRELOAD", &library).output().unwrap();
        assert!(output.status.code() == Some(0) && output.stdout.starts_with(begin.as_bytes()), "{words:?}: {output:?}");
        assert!(output.stdout.ends_with(b"\n"), "{words:?}: {output:?}");
    }
}

#[test]
fn a_disk_that_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["migrations", "--folder", folder.path().to_str().unwrap()];
    assert_eq!(kvmha(&words, Stdio::piped()), (Some(0), String::new()));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (code, said) = kvmha(&words, full.into());
    assert_eq!(code, Some(1));
    assert!(said.contains("standard output cannot be written: no space left on device"), "{said}");
}
