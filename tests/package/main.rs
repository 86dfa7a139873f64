//! The suite `package`: the packages that `packaging/build` makes, installed, upgraded and taken away, under a guest that runs.
//!
//! The program in them is compiled in less time than the one to give away (`DEB_BUILD_OPTIONS=noopt`), all else is the same. With
//! `KVMHA_PACKAGE_LONG=1` also that one, built twice, by rpmbuild too, and installed in new roots of Debian 12 and 13, on which the manual's
//! guide is followed.
#![allow(clippy::disallowed_methods, reason = "a test: it reads its own environment")]

mod built;
mod deb;
mod long;
mod rpm;

use lab::Options;
use lab::suite::Suite;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut scenarios = lab::scenarios! {
        deb: suites_have_what_they_need complete linted listed copyright_is_whole pages_link_to_each_other at_home in_force_at_once completed guest_runs_on nothing_left;
        rpm: billed_by_an_old_python named_as_each_distribution_has_them built_without_dpkg held_as_the_other
            complete bundles linted built_as_on_fedora life;
    };
    if std::env::var_os("KVMHA_PACKAGE_LONG").is_some() {
        scenarios
            .extend(lab::scenarios! { long: debian12 debian13 guide_on_debian12 guide_on_debian13 same_twice gate compiled_by_rpmbuild; });
    }
    // The agent is to come from the package.
    let options = Options { name: "package".to_owned(), nodes: 1, bare: true, agent: None, platform: None, ..Options::default() };
    Suite { options, scenarios, tidy: deb::tidy }.main()
}
