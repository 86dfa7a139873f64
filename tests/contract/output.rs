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
