//! The entry of the fuzzing: what the caller of the agent says.

use super::environment::Environment;
use super::parameters;
use std::collections::BTreeMap;

/// The environment, as it stands in `/proc/PID/environ`: `NAME=VALUE`, each with a NUL behind it.
pub fn environment(data: &[u8]) {
    crate::fuzzed::text(data, |text| {
        let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
        let variables: BTreeMap<String, String> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let environment = Environment::new(&variables, "");
        assert!(environment.budget() <= environment.timeout && !environment.budget().is_zero());
        assert!(environment.target().is_err() || !environment.migrate_target.as_ref().is_some_and(|target| target.starts_with('-')));
        let (_, faults) = parameters::read(&environment);
        assert!(faults.iter().all(|fault| !fault.text.is_empty()));
    });
}
